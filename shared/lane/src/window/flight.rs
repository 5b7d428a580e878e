//! What is in flight: the POSTs that have not ended, and what of them is unanswered.

use crate::{PostId, Seq};

/// A POST that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Post {
    pub(super) id: PostId,
    /// What it carried and no line has answered yet, with their bytes, in lane order.
    pub(super) unanswered: Vec<(Seq, usize)>,
    /// Items that it carried.
    pub(super) size: usize,
    /// A line of it came.
    pub(super) answered: bool,
    /// Its items wait again. Its final outcomes count, its end doesn't.
    pub(super) abandoned: bool,
    /// It was asked to be given up.
    pub(super) cancel: Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cancel {
    No,
    Wanted,
    Asked,
}

/// All of them, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) posts: Vec<Post>,
}

impl Flight {
    /// The lowest number that no POST in flight has: bounded, so that a model's states are.
    pub(super) fn free_id(&self) -> PostId {
        let taken = |id: u64| self.posts.iter().any(|post| post.id == PostId(id));
        PostId((0..).find(|id| !taken(*id)).unwrap_or_default())
    }

    pub(super) fn get_mut(&mut self, id: PostId) -> Option<&mut Post> {
        self.posts.iter_mut().find(|post| post.id == id)
    }

    /// Takes a POST out, with its place among the others.
    pub(super) fn remove(&mut self, id: PostId) -> Option<(usize, Post)> {
        let at = self.posts.iter().position(|post| post.id == id)?;
        Some((at, self.posts.remove(at)))
    }

    /// Gives these up, where that is not asked for yet.
    pub(super) fn call_back(&mut self, which: impl Fn(&Post) -> bool) {
        for post in self.posts.iter_mut().filter(|post| post.cancel == Cancel::No && which(post)) {
            post.cancel = Cancel::Wanted;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    /// POSTs that were not given up.
    pub(super) fn live(&self) -> usize {
        self.posts.iter().filter(|post| !post.abandoned).count()
    }

    /// Items and bytes that no line has answered yet, abandoned ones included.
    pub(super) fn held(&self) -> (usize, usize) {
        let unanswered = self.posts.iter().flat_map(|post| &post.unanswered);
        unanswered.fold((0, 0), |(items, bytes), (_, more)| (items + 1, bytes + more))
    }

    /// Is this item in a POST that has not ended and did not answer it?
    pub(super) fn carries(&self, seq: Seq) -> bool {
        self.posts.iter().any(|post| post.unanswered.iter().any(|(carried, _)| *carried == seq))
    }
}
