//! Bodies as a Lemmy sends them: votes mostly, comments, an edit, a deletion, now and then a post.
//!
//! Shapes and sizes are those of the captured requests in `tests/fixtures/`. Ids and words are drawn, so that a
//! compressor finds what it finds in real traffic (the same keys and hosts over and over) and no more. The shares are an
//! assumption: what a busy community announces is mostly votes.

use fastrand::Rng;
use serde_json::{Value, json};

/// Words of a comment: enough of them that two comments differ.
const WORDS: &str = "
    the of and to in that is was it for on with as not but have from they this which when there would about
    because people other could think really instance server community moderator federation thread comment
    upvote article source link android linux kernel release update battery coffee winter election council
    bicycle train station garden kitchen recipe movie season episode director library borrow checker compile
    memory latency network ocean cable harbour island weather storm quiet evening question answer problem
    solution history science physics orbit rocket satellite camera picture language grammar translation
    pension budget market price weekend";

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Announce` of a `Like`: about 640 bytes.
    Vote,
    /// `Announce` of `Create` of a `Note`: 1.5 to 3 KB.
    Comment,
    /// `Announce` of `Undo` of a `Like`.
    Undo,
    /// `Announce` of `Delete`.
    Delete,
    /// `Announce` of `Create` of a `Page`, with a longer text.
    Post,
}

/// Which kinds, in which shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Of a hundred: 62 votes, 28 comments, 5 taken back, 3 deleted, 2 posts.
    Usual,
    /// Votes only: the smallest.
    Votes,
    /// Comments only.
    Comments,
}

impl Mix {
    fn draw(self, rng: &mut Rng) -> Kind {
        match self {
            Self::Votes => Kind::Vote,
            Self::Comments => Kind::Comment,
            Self::Usual => match rng.u32(0..100) {
                0..62 => Kind::Vote,
                62..90 => Kind::Comment,
                90..95 => Kind::Undo,
                95..98 => Kind::Delete,
                _ => Kind::Post,
            },
        }
    }
}

/// Makes the activities of one instance. The same seed makes the same ones.
pub struct Composer {
    host: String,
    mix: Mix,
    words: Vec<&'static str>,
    rng: Rng,
}

impl Composer {
    /// For an instance.
    #[must_use]
    pub fn new(host: &str, mix: Mix, seed: u64) -> Self {
        Self { host: host.to_owned(), mix, words: WORDS.split_whitespace().collect(), rng: Rng::with_seed(seed) }
    }

    /// The next activity: its id and its body.
    pub fn next(&mut self) -> (String, Vec<u8>) {
        let kind = self.mix.draw(&mut self.rng);
        let inner = self.inner(kind);
        let word = inner["type"].as_str().unwrap_or_default().to_lowercase();
        let id = self.id(&format!("announce/{word}"));
        let announce = json!({
            "@context": ["https://join-lemmy.org/context.json", "https://www.w3.org/ns/activitystreams"],
            "actor": self.community(),
            "to": [PUBLIC],
            "object": inner,
            "cc": [format!("{}/followers", self.community())],
            "type": "Announce",
            "id": id,
        });
        (id, announce.to_string().into_bytes())
    }

    fn inner(&mut self, kind: Kind) -> Value {
        match kind {
            Kind::Vote => self.vote(),
            Kind::Comment => self.create("Note", 20..150),
            Kind::Post => self.create("Page", 50..400),
            Kind::Undo => json!({
                "id": self.id("undo"), "actor": self.person(), "object": self.vote(), "type": "Undo",
                "audience": self.community(),
            }),
            Kind::Delete => json!({
                "id": self.id("delete"), "actor": self.person(), "to": [PUBLIC], "object": self.numbered("comment"),
                "type": "Delete", "audience": self.community(), "cc": [self.community()],
            }),
        }
    }

    fn vote(&mut self) -> Value {
        json!({
            "id": self.id("like"), "actor": self.person(), "object": self.numbered("comment"), "type": "Like",
            "audience": self.community(),
        })
    }

    fn create(&mut self, what: &str, words: std::ops::Range<usize>) -> Value {
        let (person, answered, community) = (self.person(), self.person(), self.community());
        let text = self.text(words);
        let tag = json!([{"href": answered, "name": "@someone@elsewhere.test", "type": "Mention"}]);
        let published = format!(
            "2026-11-{:02}T05:{:02}:23.{:06}Z",
            self.rng.u32(1..30),
            self.rng.u32(0..60),
            self.rng.u32(0..1_000_000)
        );
        json!({
            "id": self.id("create"), "actor": person, "to": [PUBLIC],
            "object": {
                "type": what, "id": self.numbered("comment"), "attributedTo": person, "to": [PUBLIC],
                "cc": [community, answered], "content": format!("<p>{text}</p>\n"), "inReplyTo": self.numbered("post"),
                "mediaType": "text/html", "source": {"content": text, "mediaType": "text/markdown"},
                "published": published, "tag": tag, "distinguished": false, "audience": community, "attachment": [],
            },
            "cc": [community, answered], "tag": tag, "type": "Create", "audience": community,
        })
    }

    fn text(&mut self, words: std::ops::Range<usize>) -> String {
        let count = self.rng.usize(words);
        let words: Vec<&str> = (0..count).map(|_| self.words[self.rng.usize(..self.words.len())]).collect();
        words.join(" ")
    }

    /// A version 4 UUID behind the path, as Lemmy has it: 16 bytes that no compressor makes shorter.
    fn id(&mut self, path: &str) -> String {
        let [high, low] = [self.rng.u64(..), self.rng.u64(..)];
        format!(
            "https://{}/activities/{path}/{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            self.host,
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    }

    fn community(&self) -> String {
        format!("https://{}/c/technology", self.host)
    }

    fn person(&mut self) -> String {
        // A few are loud, many are not: the square of a uniform draw.
        let drawn = self.rng.f64();
        format!("https://{}/u/person{}", self.host, (drawn * drawn * 5_000.0) as u32)
    }

    fn numbered(&mut self, what: &str) -> String {
        format!("https://{}/{what}/{}", self.host, 18_000_000 + self.rng.u32(0..20_000))
    }
}

const PUBLIC: &str = "https://www.w3.org/ns/activitystreams#Public";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_activities_again_and_all_ids_differ() {
        let made = |seed| {
            let mut composer = Composer::new("a.test", Mix::Usual, seed);
            (0..500).map(|_| composer.next()).collect::<Vec<_>>()
        };
        assert_eq!(made(7), made(7));
        let ids: std::collections::HashSet<String> = made(7).into_iter().chain(made(8)).map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 1_000);
    }

    #[test]
    fn sizes_are_those_of_the_captured_ones() {
        let mean = |mix| {
            let mut composer = Composer::new("lemmy-beta.test", mix, 1);
            (0..1_000).map(|_| composer.next().1.len()).sum::<usize>() / 1_000
        };
        // Captured: 576 to 669 bytes; from 1385 with a text of three words.
        assert!((550..720).contains(&mean(Mix::Votes)), "{}", mean(Mix::Votes));
        assert!((1_500..3_500).contains(&mean(Mix::Comments)), "{}", mean(Mix::Comments));
    }
}
