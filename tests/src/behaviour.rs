//! What an instance does with a request, and which request gets what.

use crate::instance::Seen;

/// One way to deal with a request, after the service time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// An answer.
    Answer {
        /// Its status.
        status: u16,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
        /// Its body.
        body: String,
    },
    /// Takes it with this status, and closes the connection before the answer is sent.
    LoseAnswer {
        /// The status that nobody sees.
        status: u16,
    },
    /// A TCP reset.
    Reset,
    /// No answer, until the other side gives up or the instance is told to behave otherwise.
    Hang,
}

impl Behaviour {
    /// 200 with nothing in it, as Lemmy accepts.
    #[must_use]
    pub fn accepts() -> Self {
        Self::Answer { status: 200, retry_after: None, body: String::new() }
    }

    /// A status that says "later".
    #[must_use]
    pub fn busy(status: u16, retry_after: Option<u64>) -> Self {
        Self::Answer { status, retry_after, body: String::new() }
    }

    /// A status that says "never", with a body.
    #[must_use]
    pub fn rejects(status: u16, body: &str) -> Self {
        Self::Answer { status, retry_after: None, body: body.to_owned() }
    }
}

/// Picks requests.
type Matches = Box<dyn Fn(&Seen) -> bool + Send>;

struct Rule {
    /// `None`: for good.
    left: Option<usize>,
    behaviour: Behaviour,
    matches: Matches,
}

/// Rules, the oldest first; the first that matches is taken, and accepting if none does.
#[derive(Default)]
pub struct Behaviours(Vec<Rule>);

impl Behaviours {
    /// This and nothing else from now on.
    pub fn always(&mut self, behaviour: Behaviour) {
        self.0.clear();
        self.matching(None, behaviour, Box::new(|_| true));
    }

    /// This for the next `count` requests, whichever they are.
    pub fn next(&mut self, count: usize, behaviour: Behaviour) {
        self.matching(Some(count), behaviour, Box::new(|_| true));
    }

    /// This for the requests that match, `count` times.
    pub fn matching(&mut self, count: Option<usize>, behaviour: Behaviour, matches: Matches) {
        self.0.push(Rule { left: count, behaviour, matches });
    }

    /// What to do with this one.
    pub fn choose(&mut self, seen: &Seen) -> Behaviour {
        self.0.retain(|rule| rule.left != Some(0));
        let Some(rule) = self.0.iter_mut().find(|rule| (rule.matches)(seen)) else { return Behaviour::accepts() };
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        rule.behaviour.clone()
    }
}
