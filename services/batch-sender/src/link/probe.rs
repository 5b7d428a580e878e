//! Which batch format each receiver takes: found out by a GET of its batch path, which posts nothing and shows nobody
//! the credential (see [`fedstream_wire::protocol`]).
//!
//! ```text
//!   unknown ─▶ asked ─▶ sure ─▶ confirmed by each answer of its kind
//!                ▲       │
//!                └───────┘ in doubt: an answer of another kind, none at all, or nothing heard for a while
//! ```
//!
//! Before a POST the format has to be sure; so whoever replaces a receiver while lanes run never gets a batch that
//! only the former one understood, unless it was replaced within seconds and without a failure in between. What was
//! found stays the best guess until a receiver says otherwise: while it is away, nothing changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_lane::GateId;
use fedstream_wire::protocol::{ACCEPT_POST_HEADER, Protocol};
use http::header::USER_AGENT;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Link, chain, gate_of};

/// An answer to a GET takes a round trip, and a connection before it: there is nothing to compute. FED_ANSWER_TIMEOUT, where
/// that is shorter.
const ANSWER_TIMEOUT_MAX: Duration = Duration::from_secs(15);

/// How long an unconfirmed answer counts for v2. A v2 batch that comes to another receiver is refused, and that is seen.
const V2_SURE_FOR: Duration = Duration::from_secs(300);

/// And for v1. Our own receiver takes v1 as well, and then keeps the lane for v1 for a while: so before a batch that
/// comes after a pause it is asked again, a round trip that a v1 lane can spare.
const V1_SURE_FOR: Duration = Duration::from_secs(5);

/// A receiver that gave no answer is asked again no sooner, however many lanes wait for it.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Receivers that are remembered: each is an URL that an operator wrote into a lane's settings.
const RECEIVERS_MAX: usize = 1024;

/// What a receiver said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The format that it takes; ours, where it takes both.
    pub protocol: Protocol,
    /// Which life of it this is, where it has gates.
    pub gate: Option<GateId>,
}

/// The formats of all receivers, by batch URL.
#[derive(Debug)]
pub struct Formats {
    /// `BATCH_PROTOCOL` names one: nobody is asked.
    fixed: Option<Protocol>,
    receivers: Mutex<HashMap<String, Arc<Receiver>>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Receiver {
    known: Mutex<Known>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    found: Option<Found>,
    sure_until: Option<Instant>,
    failed: Option<(Instant, String)>,
}

impl Formats {
    /// Nothing is known yet, unless it is said.
    #[must_use]
    pub fn new(fixed: Option<Protocol>) -> Self {
        Self { fixed, receivers: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// The format of the receiver at this URL, as it was found last.
    #[must_use]
    pub fn of(&self, url: &str) -> Option<Protocol> {
        self.fixed.or_else(|| self.receiver(url).known().found.map(|found| found.protocol))
    }

    /// Changes whenever a receiver's format is found to be another one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// May a batch go there in the format that is known?
    pub(super) fn is_sure(&self, url: &str) -> bool {
        self.fixed.is_some() || self.receiver(url).known().is_sure(Instant::now())
    }

    /// It answered as one of its format does.
    pub(super) fn confirm(&self, url: &str) {
        if self.fixed.is_none() {
            self.receiver(url).known().confirm(Instant::now());
        }
    }

    /// It may be another one by now.
    pub(super) fn doubt(&self, url: &str) {
        if self.fixed.is_none() {
            self.receiver(url).known().sure_until = None;
        }
    }

    /// What the receiver of this link takes. Lanes that ask at the same time share one answer.
    pub(super) async fn find(&self, link: &Link) -> Result<Found, String> {
        if let Some(protocol) = self.fixed {
            return Ok(Found { protocol, gate: None });
        }
        let receiver = self.receiver(link.url());
        let _turn = receiver.asking.lock().await;
        {
            let known = receiver.known();
            if let (Some(found), true) = (known.found, known.is_sure(Instant::now())) {
                return Ok(found);
            }
            if let Some((at, cause)) = &known.failed
                && at.elapsed() < ASK_AGAIN_AFTER
            {
                return Err(cause.clone());
            }
        }
        let patience = ANSWER_TIMEOUT_MAX.min(link.answer_timeout);
        let answer = match tokio::time::timeout(patience, get(link)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {patience:?} to a GET of the batch URL: is the far side away?")),
        };
        let mut known = receiver.known();
        match answer {
            Err(cause) => {
                known.failed = Some((Instant::now(), cause.clone()));
                Err(cause)
            }
            Ok(found) => {
                let before = known.found.replace(found).map(|before| before.protocol);
                (known.failed, known.sure_until) = (None, None);
                known.confirm(Instant::now());
                if before != Some(found.protocol) {
                    let (url, protocol, before) = (link.url(), found.protocol, before.map(|before| before.to_string()));
                    tracing::info!(url, %protocol, before, "the batch-receiver was asked which batch format it takes");
                    self.changes.send_modify(|changes| *changes += 1);
                }
                Ok(found)
            }
        }
    }

    fn receiver(&self, url: &str) -> Arc<Receiver> {
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        if receivers.len() >= RECEIVERS_MAX && !receivers.contains_key(url) {
            receivers.clear(); // they are asked again
        }
        Arc::clone(receivers.entry(url.to_owned()).or_default())
    }
}

impl Receiver {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_sure(&self, now: Instant) -> bool {
        self.sure_until.is_some_and(|until| now < until)
    }

    fn confirm(&mut self, now: Instant) {
        let Some(found) = self.found else { return };
        let lasts = match found.protocol {
            Protocol::V1 => V1_SURE_FOR,
            Protocol::V2 => V2_SURE_FOR,
        };
        self.sure_until = Some(now + lasts);
    }
}

/// Asks.
async fn get(link: &Link) -> Result<Found, String> {
    let request = link.client.get(&link.url).header(USER_AGENT, &link.user_agent);
    let response = request.send().await.map_err(|error| chain(&error.without_url()))?;
    let (status, headers) = (response.status(), response.headers());
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let gate = gate_of(headers);
    let protocol =
        Protocol::of_probe(status.as_u16(), text(ACCEPT_POST_HEADER), gate.map(|gate| gate.to_string()).as_deref());
    let protocol = protocol.ok_or_else(|| {
        format!(
            "a GET of the batch URL was answered {status}, and every batch-receiver answers 405: is it there, and does a \
             proxy let GET through? (BATCH_PROTOCOL=v1 or v2 asks nobody)"
        )
    })?;
    Ok(Found { protocol, gate: gate.filter(|_| protocol == Protocol::V2) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://far.example/batch";

    fn learnt(protocol: Protocol) -> Formats {
        let formats = Formats::new(None);
        {
            let receiver = formats.receiver(URL);
            let mut known = receiver.known();
            known.found = Some(Found { protocol, gate: None });
            known.confirm(Instant::now());
        }
        formats
    }

    #[test]
    fn what_was_found_is_sure_for_a_while_and_longer_where_it_is_confirmed() {
        let a_bit = Duration::from_millis(1);
        for (protocol, lasts) in [(Protocol::V1, V1_SURE_FOR), (Protocol::V2, V2_SURE_FOR)] {
            let found = Some(Found { protocol, gate: None });
            let (mut known, start) = (Known { found, ..Known::default() }, Instant::now());
            assert!(!known.is_sure(start));
            known.confirm(start);
            assert!(known.is_sure(start + lasts - a_bit) && !known.is_sure(start + lasts));
            known.confirm(start + lasts - a_bit);
            assert!(known.is_sure(start + lasts));
        }
    }

    #[test]
    fn a_doubt_ends_it_though_it_stays_the_best_guess_and_nothing_is_known_of_others() {
        let formats = learnt(Protocol::V2);
        formats.doubt(URL);
        assert!(!formats.is_sure(URL));
        assert_eq!((formats.of(URL), formats.of("http://other/batch")), (Some(Protocol::V2), None));
        formats.confirm("http://other/batch");
        assert!(!formats.is_sure("http://other/batch"), "an answer of an unknown kind confirms nothing");
    }

    #[test]
    fn a_format_that_is_said_is_never_in_doubt() {
        let formats = Formats::new(Some(Protocol::V1));
        formats.doubt(URL);
        assert!(formats.is_sure(URL));
        assert_eq!(formats.of(URL), Some(Protocol::V1));
    }

    #[test]
    fn as_many_receivers_are_remembered_as_are_allowed() {
        let formats = Formats::new(None);
        for number in 0..2 * RECEIVERS_MAX {
            formats.receiver(&number.to_string());
        }
        assert!(formats.receivers.lock().unwrap().len() <= RECEIVERS_MAX);
    }
}
