//! One attempt: a signed POST, and what its answer means. What in-process delivery and the delivery-worker have in common.
//!
//! ```text
//!   keys ─▶ form that the remote took last ─▶ sign ─▶ POST ─▶ 2xx: delivered, remember the form
//!                       ▲                               ├──▶ 307, 308: the new place, signed anew, a few times
//!                       └──────── the next form ◀───────┤ 401, 403 (400 too, where it is not the usual form)
//!                                                       └──▶ refused, or retry: see `verdict`
//! ```
//!
//! What a remote says to the usual form counts. A form that is tried after it is a guess: it can be taken, or be sent to
//! another place, and whatever else an old server says to headers that it does not know (404, 422, 500) is not about the
//! delivery.
//!
//! Each request is signed anew, at its own moment: a signature is good for minutes, retries go on for days. It decides
//! nothing about retries, and remembers nothing but the form that a remote takes. The whole of it has one deadline
//! ([`Limits::attempt`]), however many places and forms it goes through, and a panic in it is a failed attempt.

mod client;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fedstream_lane::InstanceName;
use futures::FutureExt;
use http::HeaderMap;
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

use client::{Answer, Unanswered};

pub use client::{Client, ClientError, Limits, NoAnswer, Setup};

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
    /// The requests that were made, one for each place and form.
    pub requests: Vec<Exchange>,
    /// The beginning of the remote's answer, where it refused.
    pub answer: Option<String>,
}

/// One request of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// From its first byte to the end of its answer, or until it was given up.
    pub took: Duration,
    /// The status, or why there is none.
    pub answered: Result<u16, NoAnswer>,
}

impl Attempted {
    /// What the circuit breaker is to hear of it. `lane` is any number that tells the remote's lanes apart.
    #[must_use]
    pub fn report(&self, lane: u64) -> Report {
        match &self.verdict {
            _ if !self.was_asked() => Report::NotAsked, // no key, for instance: that is not the remote's fault
            Verdict::Retry { after: Some(after), .. } if !after.is_zero() => Report::Busy(millis(*after)),
            verdict if verdict.is_alive() => Report::Alive,
            // It sent us to where we don't go: to an address inside, for instance.
            Verdict::Refused { status: None, .. } => Report::Alive,
            verdict if verdict.is_fault() => Report::Fault(lane),
            _ => Report::Failed,
        }
    }

    /// Whether anything was sent: there was a key, and a request that can be written.
    fn was_asked(&self) -> bool {
        self.requests.iter().any(|request| request.answered != Err(NoAnswer::NoRequest))
    }

    /// Why it did not succeed, of few kinds: the status, or the word for why there was none.
    #[must_use]
    pub fn error_type(&self) -> Option<String> {
        match (&self.verdict, self.verdict.status(), self.requests.last()) {
            (Verdict::Delivered { .. }, ..) => None,
            (_, Some(status), _) => Some(status.to_string()),
            (_, None, Some(Exchange { answered: Err(kind), .. })) => Some(kind.as_str().to_owned()),
            (_, None, _) => Some("not_sent".to_owned()),
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
        let remote = remote_of(&delivery.inbox).ok();
        let span = tracing::info_span!(
            "POST",
            otel.name = "POST",
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            http.request.method = "POST",
            http.request.resend_count = tracing::field::Empty,
            http.response.status_code = tracing::field::Empty,
            error.r#type = tracing::field::Empty,
            url.full = shown(&delivery.inbox),
            server.address = delivery.inbox.host_str(),
            server.port = delivery.inbox.port_or_known_default().map(i64::from),
            url.path = delivery.inbox.path(),
            activitypub.activity.id = delivery.activity.id(),
            activitypub.remote.host = remote.as_ref().map(InstanceName::as_str),
            fedstream.signature = tracing::field::Empty,
            fedstream.outcome = tracing::field::Empty,
        );
        let attempted = self.make(delivery).instrument(span.clone()).await;
        span.record("fedstream.outcome", attempted.verdict.as_str());
        if let Some(status) = attempted.verdict.status() {
            span.record("http.response.status_code", i64::from(status)); // an unsigned one would be exported as text
        }
        if let Some(form) = attempted.form {
            span.record("fedstream.signature", form.as_str());
        }
        if let Some(kind) = attempted.error_type() {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", kind.as_str());
        }
        if attempted.requests.len() > 1 {
            span.record("http.request.resend_count", attempted.requests.len() as i64 - 1);
        }
        attempted
    }

    /// Whether the server behind this inbox answers a GET of `path` with 2xx: a question that no activity can be blamed for.
    /// Not signed, and no redirect is followed.
    pub async fn answers(&self, inbox: &Url, path: &str) -> bool {
        let Ok(page) = inbox.join(path) else { return false };
        if self.client.guard().url(&page).is_err() {
            return false;
        }
        self.client.get(&page, HeaderMap::new()).await.is_ok_and(|(status, _)| (200..300).contains(&status))
    }

    async fn make(&self, delivery: &Delivery) -> Attempted {
        let mut attempt = Attempt::default();
        let limit = self.deadline();
        let whole = Box::pin(self.whole(delivery, &mut attempt)); // several kB, and everything around it would be as large
        // Nothing of ours is left half done by a panic: what is learnt is one entry of a map.
        let whole = AssertUnwindSafe(whole).catch_unwind();
        let verdict = match tokio::time::timeout(limit, whole).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_panic)) => later(None, "the attempt ended in a panic"),
            Err(_elapsed) => attempt
                .stands
                .take()
                .unwrap_or_else(|| later(None, format!("no end of the attempt within {} s", limit.as_secs_f32()))),
        };
        let Attempt { mut requests, begun, form, answer, .. } = attempt;
        // Its time was over in the middle of a request.
        requests.extend(begun.map(|begun| Exchange { took: begun.elapsed(), answered: Err(NoAnswer::Timeout) }));
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
        let (mut place, mut moved) = (delivery.inbox.clone(), None);
        for _ in 0..=REDIRECTS_MAX {
            let remote = remote_of(&place).map_err(|error| never(None, error))?;
            self.client.guard().url(&place).map_err(|error| never(None, error))?;
            match self.forms_in_turn(&remote, &place, delivery, keys, attempt).await? {
                Step::Done(verdict) => return Ok(verdict),
                Step::Moved(status, to) => (place, moved) = (to, Some(status)),
            }
        }
        Err(later(moved, format!("moved more than {REDIRECTS_MAX} times")))
    }

    async fn forms_in_turn(
        &self,
        remote: &InstanceName,
        place: &Url,
        delivery: &Delivery,
        keys: &ActorKeys,
        attempt: &mut Attempt,
    ) -> Result<Step, Verdict> {
        attempt.stands = None; // of the place before
        let mut of_another: Option<Verdict> = None; // what a remembered form is told, until the usual one is tried
        let forms = self.forms().for_remote(remote, keys);
        let usual = forms.iter().copied().min();
        for form in forms {
            let now = SystemTime::now();
            let answer = match self.ask(form, keys, place, delivery, now, attempt).await {
                Ok(answer) => answer,
                Err(_) if attempt.stands.is_some() => break, // it is gone, with the form that counts answered
                Err(verdict) => return Err(verdict),
            };
            let status = answer.status;
            let said = |what: &str| format!("the remote answered {status}{what}");
            let reason = answer.body.as_deref().map(|body| format!(": {body}")).unwrap_or_default();
            let meaning = verdict::of(status, answer.retry_after.as_deref(), now);
            if attempt.stands.is_none() || matches!(meaning, Meaning::Delivered) {
                attempt.answer = answer.body;
            }
            match meaning {
                Meaning::Delivered => {
                    self.forms().accepted(remote, form);
                    return Ok(Step::Done(Verdict::Delivered { status }));
                }
                Meaning::Moved => match (answer.location.and_then(|to| place.join(&to).ok()), &attempt.stands) {
                    (Some(to), _) => return Ok(Step::Moved(status, to)),
                    (None, Some(_)) => {}
                    (None, None) => return Err(later(Some(status), said(" without a place to go to"))),
                },
                Meaning::Retry { after } if attempt.stands.is_some() => attempt.left_alone_for(after),
                Meaning::Refused | Meaning::Unsigned if attempt.stands.is_some() => {}
                // A form that was remembered is tried first, so it may be what is wrong with the request.
                Meaning::Refused if status == 400 && Some(form) != usual => {
                    of_another = Some(never(Some(status), said(&reason)));
                }
                Meaning::Refused => return Ok(Step::Done(never(Some(status), said(&reason)))),
                Meaning::Retry { after } => {
                    return Ok(Step::Done(Verdict::Retry { status: Some(status), after, cause: said("") }));
                }
                Meaning::Unsigned => {
                    let cause = said(&format!(" to every form of signature{reason}"));
                    // 401 may be a key that the remote could not fetch just now; 403 is its will.
                    let verdict = if status == 401 { later(Some(status), cause) } else { never(Some(status), cause) };
                    if Some(form) == usual {
                        attempt.stands = Some(verdict);
                    } else {
                        of_another = Some(verdict);
                    }
                }
            }
        }
        let verdict = attempt.stands.take().or(of_another);
        // No form at all: keys without a key, which `ActorKeys` does not make.
        Ok(Step::Done(verdict.unwrap_or_else(|| later(None, "the actor has no key"))))
    }

    /// One request, signed in this form; what keeps it from an answer is a verdict.
    async fn ask(
        &self,
        form: Form,
        keys: &ActorKeys,
        place: &Url,
        delivery: &Delivery,
        now: SystemTime,
        attempt: &mut Attempt,
    ) -> Result<Answer, Verdict> {
        // A fault of the keys, for all that can be seen here: somebody may put it right, as one that is missing.
        let headers =
            signature::sign(form, keys, place, &delivery.activity, now).map_err(|error| later(None, error))?;
        let answered = attempt.request(form, self.client.post(place, headers, delivery.activity.body().clone()));
        answered.await.map_err(|error| match error.kind {
            NoAnswer::NoRequest => never(None, error), // no later one would be another
            NoAnswer::Connect | NoAnswer::Timeout | NoAnswer::BrokenOff => later(None, error),
        })
    }

    fn forms(&self) -> std::sync::MutexGuard<'_, Forms> {
        self.forms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Attempt {
    requests: Vec<Exchange>,
    /// When the request began that has no end yet.
    begun: Option<Instant>,
    form: Option<Form>,
    answer: Option<String>,
    /// What the place says to the usual form, while others are tried: nothing but one that is taken is better.
    stands: Option<Verdict>,
}

impl Attempt {
    /// To another form the remote says that it is busy. That is not about the form.
    fn left_alone_for(&mut self, asked: Option<Duration>) {
        if let Some(Verdict::Retry { after, .. }) = &mut self.stands {
            *after = asked.max(*after);
        }
    }

    /// One more request.
    async fn request(
        &mut self,
        form: Form,
        request: impl Future<Output = Result<Answer, Unanswered>>,
    ) -> Result<Answer, Unanswered> {
        let begun = Instant::now();
        (self.form, self.begun) = (Some(form), Some(begun));
        let answered = request.await;
        self.begun = None;
        let exchange = answered.as_ref().map(|answer| answer.status).map_err(|error| error.kind);
        self.requests.push(Exchange { took: begun.elapsed(), answered: exchange });
        answered
    }
}

enum Step {
    Done(Verdict),
    /// With the status that said so.
    Moved(u16, Url),
}

fn never(status: Option<u16>, cause: impl ToString) -> Verdict {
    Verdict::Refused { status, cause: line(&cause.to_string()) }
}

fn later(status: Option<u16>, cause: impl ToString) -> Verdict {
    Verdict::Retry { status, after: None::<Duration>, cause: line(&cause.to_string()) }
}

/// An inbox as spans show it: of a query only that there is one.
fn shown(inbox: &Url) -> String {
    match inbox.as_str().split_once('?') {
        Some((before, _)) => format!("{before}?…"),
        None => inbox.to_string(),
    }
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
        let lane = 7;
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
            (1, retry(Some(500), Some(minute)), Report::Busy(60_000)),
            (1, retry(Some(500), None), Report::Fault(lane)),
            (1, retry(Some(502), None), Report::Failed),
            (1, retry(Some(503), None), Report::Failed),
            (2, retry(None, None), Report::Failed),
            (0, retry(None, None), Report::NotAsked),
            (0, Verdict::Refused { status: None, cause: String::new() }, Report::NotAsked),
        ] {
            let exchange = Exchange { took: Duration::ZERO, answered: Err(NoAnswer::Timeout) };
            let attempted = Attempted { verdict, form: None, requests: vec![exchange; requests], answer: None };
            assert_eq!(attempted.report(lane), report, "{attempted:?}");
        }
        let refused = |answered| {
            let verdict = Verdict::Refused { status: None, cause: String::new() };
            let requests = vec![Exchange { took: Duration::ZERO, answered }];
            Attempted { verdict, form: None, requests, answer: None }.report(lane)
        };
        assert_eq!(refused(Ok(307)), Report::Alive, "it sends us to where we don't go");
        assert_eq!(refused(Err(NoAnswer::NoRequest)), Report::NotAsked);
    }

    #[test]
    fn a_span_shows_no_query_and_says_why_it_failed() {
        let url = |text: &str| shown(&text.parse().expect("a URL"));
        assert_eq!(url("https://a.example/inbox"), "https://a.example/inbox");
        assert_eq!(url("https://a.example/inbox?token=s3cret"), "https://a.example/inbox?…");
        let error = |verdict, answered: &[Result<u16, NoAnswer>]| {
            let exchange = |answered: &Result<u16, NoAnswer>| Exchange { took: Duration::ZERO, answered: *answered };
            let requests = answered.iter().map(exchange).collect();
            Attempted { verdict, form: None, requests, answer: None }.error_type()
        };
        let retry = |status| Verdict::Retry { status, after: None, cause: String::new() };
        assert_eq!(error(Verdict::Delivered { status: 202 }, &[Ok(401), Ok(202)]), None);
        assert_eq!(error(retry(Some(503)), &[Ok(503)]).as_deref(), Some("503"));
        assert_eq!(error(retry(None), &[Err(NoAnswer::Connect)]).as_deref(), Some("connect"));
        assert_eq!(error(retry(None), &[]).as_deref(), Some("not_sent"));
    }
}
