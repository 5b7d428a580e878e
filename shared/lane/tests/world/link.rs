//! The link of a world, and its instance: what is lost, late, repeated, and answered.

use fedstream_lane::{End, Event, Final, Seq};

use super::far::{AtInstance, Did, Line, Request, Said};
use super::plan::{Ending, Fate};
use super::{World, pick};

impl World {
    pub(super) fn take_from_wire(&mut self, which: u8) -> Option<Request> {
        let at = pick(which, 0..self.wire.len())?;
        Some(self.wire.remove(at))
    }

    pub(super) fn arrive(&mut self, which: u8, twice: Option<bool>) {
        let Some(mut request) = self.take_from_wire(which) else { return };
        if let Some(hears_the_first) = twice {
            let mut again = request.clone();
            again.heard &= !hears_the_first;
            request.heard &= hears_the_first;
            self.wire.push(again);
        }
        self.far.arrive(request);
    }

    /// An activity at the instance comes to its end.
    pub(super) fn finish(&mut self, which: u8, ending: Ending) {
        let Some(at) = pick(which, 0..self.far.at_instance.len()) else { return };
        let at = self.far.at_instance.swap_remove(at);
        let result = self.result(at, ending);
        let of_this_life = at.life == self.far.life();
        let outcome = match (ending, self.outcome_of(at.seq)) {
            (Ending::Final | Ending::AnswerLost, outcome) => outcome,
            _ => None,
        };
        self.ledger.done(at.life, at.seq, outcome, of_this_life && result.is_ok());
        let did = self.far.finished(at, result);
        self.hand_on(did);
    }

    fn result(&self, at: AtInstance, ending: Ending) -> Result<(Final, u16), End> {
        let (seq, alive) = (at.seq, ending == Ending::Final);
        let retry = |status, alive, after: Option<u16>| {
            Err(End::Retry { seq, status, alive, retry_after_ms: after.map(u64::from) })
        };
        match ending {
            Ending::Final => match self.outcome_of(seq) {
                Some(outcome) => Ok((outcome, if outcome.park_reason().is_some() { 400 } else { 202 })),
                None => retry(Some(500), alive, None),
            },
            Ending::Unavailable(after) => retry(Some(503), true, after),
            Ending::Fault(alive) => retry(Some(500), alive, None),
            Ending::AnswerLost => retry(None, false, None),
        }
    }

    fn outcome_of(&self, seq: Seq) -> Option<Final> {
        match self.fates[&seq] {
            Fate::Taken | Fate::Until(_) => Some(Final::Delivered),
            Fate::Refused(outcome) => Some(outcome),
            Fate::Poison => None,
            Fate::Unreadable => panic!("no-loss: {seq} can't be read, and was posted"),
        }
    }

    pub(super) fn hand_on(&mut self, did: Did) {
        if let Did::Says(Said { post, heard: true, line }) = did
            && let Some(post) = self.posts.get_mut(&post)
        {
            post.lines.push_back(line);
        }
    }

    pub(super) fn hear(&mut self, which: u8) {
        let talking = self.posts.iter().filter(|(_, post)| !post.lines.is_empty()).map(|(id, _)| *id);
        if let Some(post) = pick(which, talking) {
            self.hear_line(post);
        }
    }

    pub(super) fn hear_line(&mut self, id: usize) {
        let Some(post) = self.posts.get_mut(&id) else { return };
        let (owner, name) = (post.owner, post.batch.post);
        match post.lines.pop_front() {
            Some(Line::Outcome(seq, outcome)) => {
                self.ledger.heard(self.processes[owner].owner.epoch, name, seq);
                self.tell(owner, Event::Outcome { post: name, seq, outcome });
            }
            Some(Line::Over(end)) => self.end(id, end),
            None => {}
        }
    }

    pub(super) fn lost(&mut self, id: usize) {
        self.end(id, End::Lost);
    }

    fn end(&mut self, id: usize, end: End) {
        let Some(post) = self.posts.remove(&id) else { return };
        self.ledger.ended(self.processes[post.owner].owner.epoch, post.batch.post, &end);
        let jitter = u16::try_from(id % 1000).unwrap_or(0);
        self.tell(post.owner, Event::Ended { post: post.batch.post, end, jitter });
    }

    /// A request whose sender is gone: no further item of it is begun.
    pub(super) fn find_out(&mut self, which: u8) {
        let open = &self.posts;
        let unheard = self.far.requests().filter(|(_, request)| !request.heard || !open.contains_key(&request.post));
        if let Some(id) = pick(which, unheard.map(|(id, _)| id)) {
            self.far.drop_request(id);
        }
    }
}
