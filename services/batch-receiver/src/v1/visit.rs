//! A v1 batch at the instance: its activities one by one, in order, and one entry for each that was tried.
//!
//! A task of its own: whatever becomes of the connection that brought the batch, the activity at the instance has its
//! outcome, and the batch its turn until then. For a sender that has gone nothing further is begun.
//!
//! What an entry's status says, since a sender of v1 acts on nothing else (408, 429 and 5xx mean "again", anything else
//! "over"):
//!
//! | the instance | status |
//! |---|---|
//! | has taken it, or refused it for good | its own; also "already received", an old signature, its own time-out |
//! | answered 408, 429, 5xx | its own |
//! | answered what means "again" all the same (3xx, a database that is away) | 503, with the cause as body |
//! | did not answer | 502, with the cause as body |
//! | was not asked (a shutdown, FED_V1_BATCH_TIME) | 503, with the cause as body |

use std::sync::Arc;

use bytes::Bytes;
use fedstream_lane::Profile;
use fedstream_service::context;
use fedstream_wire::v1::{Entry, is_tolerable};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::activity::Activity;
use crate::delivery_span;
use crate::feeders::Turn;
use crate::replay::{Exchanged, Received, Replay};
use crate::room::Place;
use crate::series;
use crate::verdict::Verdict;
use crate::witness::Witness;

/// What an entry keeps of the instance's answer, bytes: the body is for people, as it is in v2.
const BODY_KEPT_BYTES: usize = 4096;

/// Names and values of the headers that an entry keeps, bytes: a hostile instance should not fill this process.
const HEADERS_KEPT_BYTES: usize = 8192;

/// A batch whose turn it is.
#[derive(Debug)]
pub struct V1Visit {
    /// The way to the instance.
    pub replay: Arc<Replay>,
    /// How its refusals are read.
    pub profile: Profile,
    /// The turn at each of its lanes.
    #[expect(dead_code, reason = "kept, never read")]
    pub turns: Vec<Turn>,
    /// What the batch holds.
    #[expect(dead_code, reason = "kept, never read")]
    pub place: Place,
    /// Nothing is begun after this.
    pub until: Instant,
    /// Cancelled at shutdown: nothing is begun after it either.
    pub stopping: CancellationToken,
}

/// An activity and what is known of its instance.
pub type Watched = (Activity, Option<Arc<Witness>>);

impl V1Visit {
    /// Takes the activities in turn, and gives the entries to whoever waits for them.
    pub async fn run(self, activities: Vec<Watched>, answer: oneshot::Sender<Vec<Entry>>) {
        let mut entries = Vec::with_capacity(activities.len());
        for (activity, witness) in activities {
            if answer.is_closed() {
                tracing::debug!("the sender has gone in the middle of a v1 batch");
                return;
            }
            let entry = match self.not_begun() {
                Some(cause) => {
                    tracing::info!(lane = %activity.lane, cause, "a v1 batch is not finished");
                    synthetic(activity.id, 503, cause)
                }
                None => self.deliver(activity, witness).await,
            };
            let goes_on = is_tolerable(entry.status);
            entries.push(entry);
            if !goes_on {
                break;
            }
        }
        // A sender that goes now asks again.
        drop(answer.send(entries));
    }

    /// Why nothing more is begun.
    fn not_begun(&self) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            Some("not tried: this receiver stops")
        } else if Instant::now() >= self.until {
            Some("not tried: the batch has taken FED_V1_BATCH_TIME")
        } else {
            None
        }
    }

    async fn deliver(&self, activity: Activity, witness: Option<Arc<Witness>>) -> Entry {
        let Activity { id, lane, address, parcel } = activity;
        let url = self.replay.url(&address, &parcel);
        // The format carries no trace: each delivery is in its batch's.
        let span = delivery_span::begin(&url, &address, &parcel, &lane, None);
        context::continue_from(&span, Some(Span::current().context()));
        let began = witness.as_ref().map(|witness| witness.begins());
        let exchanged = self.replay.exchange(&address, self.profile, &parcel).instrument(span.clone()).await;
        let verdict = &exchanged.verdict;
        series::delivered(&series::of_v1(&lane, verdict), verdict);
        if let (Some(witness), Some(began), Verdict::Final(_)) = (&witness, began, verdict) {
            // Evidence for the other lanes. Its failures are none: a v1 batch has no activity that could be parked.
            witness.heard(began, &lane.source, parcel.seq, &parcel.msg_id, verdict, &address);
        }
        span.in_scope(|| {
            delivery_span::tell(&parcel, &lane, None, verdict);
            if let Verdict::Retry { status, cause, .. } = verdict {
                let activity_id = &parcel.activity_id;
                tracing::warn!(%lane, activity.id = activity_id, status, cause, "an activity of a v1 batch has to be tried again");
            }
        });
        entry(id, exchanged)
    }
}

/// What became of it, in v1's words.
fn entry(activity_id: String, exchanged: Exchanged) -> Entry {
    match (exchanged.verdict, exchanged.answer) {
        (Verdict::Final(answer), Some(received)) => own(activity_id, answer.status, &received),
        (Verdict::Retry { status: Some(status), .. }, Some(received)) if !is_tolerable(status) => {
            own(activity_id, status, &received)
        }
        (Verdict::Retry { status: Some(_), cause, retry_after_s }, _) => {
            let mut entry = synthetic(activity_id, 503, &cause);
            entry.headers.extend(retry_after_s.map(|seconds| ("retry-after".to_owned(), seconds.to_string())));
            entry
        }
        (Verdict::Retry { status: None, cause, .. }, _) => synthetic(activity_id, 502, &cause),
        // A final outcome is read from an answer.
        (Verdict::Final(answer), None) => synthetic(activity_id, answer.status, ""),
    }
}

/// The instance's own answer.
fn own(activity_id: String, status: u16, received: &Received) -> Entry {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Entry {
        time: now(),
        activity_id,
        status,
        headers: headers(&received.headers),
        content_type: received.headers.get(CONTENT_TYPE).map(text),
        // The format passes a body only beside its length; what a refusal says decides what becomes of the activity.
        body: Some(())
            .filter(|()| (400..500).contains(&status) || received.headers.contains_key(CONTENT_LENGTH))
            .and_then(|()| body(received.body.as_ref()?)),
    }
}

/// An answer of our own, about the instance.
fn synthetic(activity_id: String, status: u16, cause: &str) -> Entry {
    let (content_type, body) = (Some("text/plain".to_owned()), (!cause.is_empty()).then(|| cause.to_owned()));
    Entry { time: now(), activity_id, status, headers: Vec::new(), content_type, body }
}

fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut bytes = 0;
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let kept = headers.iter().map(text).take_while(|(name, value)| {
        bytes += name.len() + value.len();
        bytes <= HEADERS_KEPT_BYTES
    });
    kept.collect()
}

/// The beginning of a body that is not empty, cut at a character.
fn body(body: &Bytes) -> Option<String> {
    let mut text = String::from_utf8_lossy(&body[..body.len().min(BODY_KEPT_BYTES)]).into_owned();
    text.truncate(text.floor_char_boundary(BODY_KEPT_BYTES));
    (!text.is_empty()).then_some(text)
}

fn now() -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SERVICE};
    use crate::room::Room;
    use crate::rules::Rules;
    use crate::v1::activity;
    use fedstream_lane::{Answer, Final};
    use fedstream_service::config::{Environment, load_from};
    use fedstream_wire::v1::Item;
    use std::time::Duration;

    fn received(headers: &[(&'static str, &str)], body: &'static [u8]) -> Received {
        let headers = headers.iter().map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")));
        Received { headers: headers.collect(), body: Some(Bytes::from_static(body)) }
    }

    fn of(verdict: Verdict, answer: Option<Received>) -> Entry {
        entry("id".into(), Exchanged { verdict, answer, failed: None })
    }

    fn retry(status: Option<u16>) -> Verdict {
        Verdict::Retry { status, retry_after_s: Some(7), cause: "why".into() }
    }

    #[tokio::test]
    async fn after_its_time_or_at_shutdown_nothing_is_begun_and_the_entry_says_so() {
        let pairs = [
            ("FED_OPEN_RECEIVER", "yes"),
            ("FED_DESTINATIONS", "b.example"),
            ("OVERRIDE_DESTINATION_PROTOCOL", "http"),
        ];
        let config: Config = load_from(&SERVICE, &Environment::from_pairs(&pairs)).expect("configuration");
        let (rules, replay) = (Rules::new(&config).expect("rules"), Arc::new(Replay::new(&config).expect("a client")));
        let item = |number: u8| Item {
            time: now(),
            activity_id: number.to_string(),
            host: "b.example".into(),
            path: "/inbox".into(),
            headers: Vec::new(),
            body: Bytes::new(),
        };
        for (until, stops, words) in [(0, false, "FED_V1_BATCH_TIME"), (60, true, "this receiver stops")] {
            let stopping = CancellationToken::new();
            if stops {
                stopping.cancel();
            }
            let visit = V1Visit {
                replay: replay.clone(),
                profile: Profile::Generic,
                turns: Vec::new(),
                place: Room::new(1, 1).place().expect("room"),
                until: Instant::now() + Duration::from_secs(until),
                stopping,
            };
            let (sender, entries) = oneshot::channel();
            let activities = activity::check(&rules, vec![item(1), item(2)]).expect("fit");
            visit.run(activities.into_iter().map(|activity| (activity, None)).collect(), sender).await;
            let entries = entries.await.expect("entries");
            let [entry] = &entries[..] else { panic!("one: {entries:?}") };
            assert_eq!((entry.activity_id.as_str(), entry.status), ("1", 503));
            assert!(entry.body.as_ref().is_some_and(|body| body.contains(words)), "{entry:?}");
        }
    }

    #[test]
    fn a_final_status_is_the_instances_own_whatever_it_means() {
        for (outcome, status) in [
            (Final::Delivered, 202),
            (Final::Duplicate, 400),
            (Final::Expired, 400),
            (Final::Unprocessed, 400),
            (Final::Rejected, 404),
        ] {
            let answer = Answer { outcome, status, body: None };
            assert_eq!(of(Verdict::Final(answer), Some(received(&[], b""))).status, status);
        }
    }

    #[test]
    fn what_has_to_be_tried_again_has_a_status_that_a_v1_sender_acts_on() {
        for status in [408, 429, 500, 503] {
            let entry = of(retry(Some(status)), Some(received(&[("retry-after", "9")], b"")));
            assert_eq!((entry.status, &entry.headers[..]), (status, &[("retry-after".into(), "9".into())][..]));
        }
        for status in [100, 301, 400, 401] {
            let entry = of(retry(Some(status)), Some(received(&[("location", "/x")], b"no")));
            assert_eq!((entry.status, entry.body.as_deref()), (503, Some("why")), "{status}");
            assert_eq!(entry.headers, [("retry-after".to_owned(), "7".to_owned())]);
        }
        assert_eq!(of(retry(None), None).status, 502);
    }

    #[test]
    fn the_body_is_null_without_a_length_or_a_byte() {
        let body = |headers: &[(&'static str, &str)], body: &'static [u8]| {
            let delivered = Verdict::Final(Answer { outcome: Final::Delivered, status: 200, body: None });
            let entry = of(delivered, Some(received(headers, body)));
            (entry.content_type, entry.body)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(body(&[("content-length", "2")], b"ok"), (None, text("ok")));
        assert_eq!(body(&[("content-type", "text/plain; charset=x")], b"ok"), (text("text/plain; charset=x"), None));
        assert_eq!(body(&[("content-length", "0")], b""), (None, None));
        assert_eq!(body(&[("content-length", "1")], b"\xff"), (None, text("\u{fffd}")));
        let long = "\u{20ac}".repeat(2000).leak();
        let kept = body(&[("content-length", "6000")], long.as_bytes()).1.expect("a body");
        assert!(kept.len() <= BODY_KEPT_BYTES && kept.starts_with('\u{20ac}'));
    }

    #[test]
    fn headers_keep_their_order_and_are_bounded() {
        let mut map = received(&[("set-cookie", "a"), ("x", "1"), ("set-cookie", "b")], b"").headers;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(headers(&map), [pair("set-cookie", "a"), pair("set-cookie", "b"), pair("x", "1")]);
        for _ in 0..100 {
            map.append("y", "1".repeat(1000).parse().expect("value"));
        }
        assert_eq!(headers(&map).len(), 3 + 8);
    }
}
