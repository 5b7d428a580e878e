//! One attempt: a signed POST, and what its answer means. What in-process delivery and the delivery-worker have in common.
//!
//! ```text
//!   keys ─▶ form that the remote took last ─▶ sign ─▶ POST ─▶ 2xx: delivered, remember the form
//!                       ▲                               ├──▶ 307, 308: the new place, signed anew, a few times
//!                       └──────── the next form ◀───────┤ 401, 403 (400 too, where it is not the usual form)
//!                                                       └──▶ refused, or retry: see `verdict`
//! ```
//!
//! Each request is signed anew, at its own moment: a signature is good for minutes, retries go on for days. It decides
//! nothing about retries, and remembers nothing but the form that a remote takes. The whole of it has one deadline
//! ([`Limits::attempt`]), however many places and forms it goes through, and a panic in it is a failed attempt.

mod client;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fedstream_lane::InstanceName;
use futures::FutureExt;
use tracing::Instrument;
use url::Url;
use uuid::Uuid;

use crate::activity::Activity;
use crate::breaker::Report;
use crate::forms::Forms;
use crate::guard::Guard;
use crate::keys::{self, ActorKeys, SigningKeys};
use crate::lanes::remote_of;
use crate::rules::millis;
use crate::signature::{self, Form};
use crate::verdict::{self, Meaning, Verdict};

pub use client::{Client, ClientError, Limits, Setup};

/// Remotes of which it is remembered that they take another form than the usual one: some 100 bytes each.
const FORMS_MAX: usize = 20_000;

/// Redirects that one delivery follows.
const REDIRECTS_MAX: u32 = 3;

/// A cause is a line for people.
const CAUSE_CHARS_MAX: usize = 300;

/// What is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where it goes.
    pub inbox: Url,
    /// What goes there.
    pub activity: Arc<Activity>,
    /// Whose key signs it.
    pub signing_actor_id: Uuid,
}

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// What it means.
    pub verdict: Verdict,
    /// The form of the last signature; none where nothing was sent.
    pub form: Option<Form>,
    /// Requests that were made.
    pub requests: u32,
    /// The beginning of the remote's answer, where it refused.
    pub answer: Option<String>,
}

impl Attempted {
    /// What the circuit breaker is to hear of it.
    #[must_use]
    pub fn report(&self) -> Report {
        match &self.verdict {
            _ if self.requests == 0 => Report::NotAsked, // no key, for instance: that is not the remote's fault
            Verdict::Retry { after: Some(after), .. } if !after.is_zero() => Report::Busy(millis(*after)),
            verdict if verdict.is_alive() => Report::Alive,
            _ => Report::Failed,
        }
    }
}

/// Makes attempts. Cheap to clone; all clones share connections and what was learnt.
#[derive(Clone)]
pub struct Attempts {
    client: Client,
    keys: Arc<dyn SigningKeys>,
    forms: Arc<Mutex<Forms>>,
}

impl Attempts {
    /// With these keys, over this client.
    #[must_use]
    pub fn new(client: Client, keys: Arc<dyn SigningKeys>) -> Self {
        Self { client, keys, forms: Arc::new(Mutex::new(Forms::new(FORMS_MAX))) }
    }

    /// What may be connected to.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        self.client.guard()
    }

    /// How long one attempt takes at most.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.client.limits().attempt
    }

    /// Tries once to deliver.
    pub async fn attempt(&self, delivery: &Delivery) -> Attempted {
        let span = tracing::info_span!(
            "POST",
            otel.name = "POST",
            otel.kind = "client",
            http.request.method = "POST",
            http.response.status_code = tracing::field::Empty,
            server.address = delivery.inbox.host_str(),
            server.port = delivery.inbox.port_or_known_default().map(i64::from),
            url.path = delivery.inbox.path(),
            activitypub.activity.id = delivery.activity.id(),
            activitypub.remote.host = delivery.inbox.host_str(),
            fedstream.signature = tracing::field::Empty,
            fedstream.outcome = tracing::field::Empty,
        );
        let attempted = self.make(delivery).instrument(span.clone()).await;
        span.record("fedstream.outcome", attempted.verdict.as_str());
        if let Some(status) = attempted.verdict.status() {
            span.record("http.response.status_code", status);
        }
        if let Some(form) = attempted.form {
            span.record("fedstream.signature", form.as_str());
        }
        attempted
    }

    async fn make(&self, delivery: &Delivery) -> Attempted {
        let mut attempt = Attempt { requests: 0, form: None, answer: None };
        let limit = self.deadline();
        // Nothing of ours is left half done by a panic: what is learnt is one entry of a map.
        let whole = AssertUnwindSafe(self.whole(delivery, &mut attempt)).catch_unwind();
        let verdict = match tokio::time::timeout(limit, whole).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_panic)) => later(None, "the attempt ended in a panic"),
            Err(_elapsed) => later(None, format!("no end of the attempt within {} s", limit.as_secs_f32())),
        };
        let Attempt { requests, form, answer } = attempt;
        let answer = answer.filter(|_| matches!(verdict, Verdict::Refused { .. }));
        Attempted { verdict, form, requests, answer }
    }

    async fn whole(&self, delivery: &Delivery, attempt: &mut Attempt) -> Verdict {
        match self.keys.keys(delivery.signing_actor_id).await {
            Ok(keys) => match self.go(delivery, &keys, attempt).await {
                Ok(verdict) | Err(verdict) => verdict,
            },
            Err(error @ (keys::Error::Unknown(_) | keys::Error::Unavailable { .. })) => later(None, error),
        }
    }

    /// From place to place, and at each place from form to form. Either side of the result is a verdict: `?` ends it.
    async fn go(&self, delivery: &Delivery, keys: &ActorKeys, attempt: &mut Attempt) -> Result<Verdict, Verdict> {
        let mut place = delivery.inbox.clone();
        for _ in 0..=REDIRECTS_MAX {
            let remote = remote_of(&place).map_err(|error| never(None, error))?;
            self.client.guard().url(&place).map_err(|error| never(None, error))?;
            match self.forms_in_turn(&remote, &place, delivery, keys, attempt).await? {
                Step::Done(verdict) => return Ok(verdict),
                Step::Moved(to) => place = to,
            }
        }
        Err(later(None, format!("moved more than {REDIRECTS_MAX} times")))
    }

    async fn forms_in_turn(
        &self,
        remote: &InstanceName,
        place: &Url,
        delivery: &Delivery,
        keys: &ActorKeys,
        attempt: &mut Attempt,
    ) -> Result<Step, Verdict> {
        let mut unsigned: Option<Verdict> = None;
        let forms = self.forms().for_remote(remote, keys);
        let usual = forms.iter().copied().min();
        for form in forms {
            let now = SystemTime::now();
            let headers = signature::sign(form, keys, place, &delivery.activity, now);
            let headers = headers.map_err(|error| never(None, error))?;
            attempt.requests += 1;
            attempt.form = Some(form);
            let answered = self.client.post(place, headers, delivery.activity.body().clone()).await;
            let answer = answered.map_err(|error| later(None, error))?;
            let status = answer.status;
            let said = |what: &str| format!("the remote answered {status}{what}");
            let reason = answer.body.as_deref().map(|body| format!(": {body}")).unwrap_or_default();
            attempt.answer = answer.body;
            match verdict::of(status, answer.retry_after.as_deref(), now) {
                Meaning::Delivered => {
                    self.forms().accepted(remote, form);
                    return Ok(Step::Done(Verdict::Delivered { status }));
                }
                Meaning::Moved => {
                    let to = answer.location.and_then(|to| place.join(&to).ok());
                    return to.map(Step::Moved).ok_or_else(|| later(Some(status), said(" without a place to go to")));
                }
                // A form that was remembered is tried first, so it may be what is wrong with the request.
                Meaning::Refused if status == 400 && Some(form) != usual => {
                    unsigned.get_or_insert_with(|| never(Some(status), said(&reason)));
                }
                Meaning::Refused => return Ok(Step::Done(never(Some(status), said(&reason)))),
                Meaning::Retry { after } => {
                    return Ok(Step::Done(Verdict::Retry { status: Some(status), after, cause: said("") }));
                }
                Meaning::Unsigned => {
                    let cause = said(&format!(" to every form of signature{reason}"));
                    // 401 may be a key that the remote could not fetch just now; 403 is its will.
                    let verdict = if status == 401 { later(Some(status), cause) } else { never(Some(status), cause) };
                    // What it says to the usual form counts: that is the one that should have done.
                    if unsigned.is_none() || Some(form) == usual {
                        unsigned = Some(verdict);
                    }
                }
            }
        }
        // No form at all: keys without a key, which `ActorKeys` does not make.
        Ok(Step::Done(unsigned.unwrap_or_else(|| later(None, "the actor has no key"))))
    }

    fn forms(&self) -> std::sync::MutexGuard<'_, Forms> {
        self.forms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Attempt {
    requests: u32,
    form: Option<Form>,
    answer: Option<String>,
}

enum Step {
    Done(Verdict),
    Moved(Url),
}

fn never(status: Option<u16>, cause: impl ToString) -> Verdict {
    Verdict::Refused { status, cause: line(&cause.to_string()) }
}

fn later(status: Option<u16>, cause: impl ToString) -> Verdict {
    Verdict::Retry { status, after: None::<Duration>, cause: line(&cause.to_string()) }
}

/// A cause as one line.
fn line(cause: &str) -> String {
    cause.chars().take(CAUSE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_hears_what_the_remote_said_of_itself() {
        let minute = Duration::from_secs(60);
        let retry = |status, after| Verdict::Retry { status, after, cause: String::new() };
        for (requests, verdict, report) in [
            (1, Verdict::Delivered { status: 202 }, Report::Alive),
            (1, Verdict::Refused { status: Some(410), cause: String::new() }, Report::Alive),
            (1, retry(Some(408), None), Report::Alive),
            (1, retry(Some(425), Some(Duration::ZERO)), Report::Alive),
            // Whatever the status: it asks to be left alone.
            (1, retry(Some(302), Some(minute)), Report::Busy(60_000)),
            (1, retry(Some(408), Some(minute)), Report::Busy(60_000)),
            (1, retry(Some(425), Some(minute)), Report::Busy(60_000)),
            (1, retry(Some(503), Some(minute)), Report::Busy(60_000)),
            (1, retry(Some(503), None), Report::Failed),
            (2, retry(None, None), Report::Failed),
            (0, retry(None, None), Report::NotAsked),
            (0, Verdict::Refused { status: None, cause: String::new() }, Report::NotAsked),
        ] {
            let attempted = Attempted { verdict, form: None, requests, answer: None };
            assert_eq!(attempted.report(), report, "{attempted:?}");
        }
    }
}
