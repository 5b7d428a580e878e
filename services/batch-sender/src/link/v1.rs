//! The existing batcher's format: the whole answer comes at the end, and settles only what stands in it, index by index.
//!
//! There is no gate and no memory at the far side. What was delivered and whose answer was lost is delivered again: how
//! often is bounded by nothing but the failures. Anything but a whole, fitting 2xx answer settles nothing.

use std::time::Duration;

use bytes::BytesMut;
use fedstream_carrier::Ended;
use fedstream_lane::{Answer, End, Profile, Seq};
use fedstream_service::shutdown::CancellationToken;
use fedstream_wire::v1::{self, BATCH_OVERHEAD_BYTES, Item, OWNER_HEADER, Outcomes, Owner, Unfit};
use fedstream_wire::v2::{Batch, BatchItem};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE};
use reqwest::Response;

use super::{Link, Measured, chain, refusal_body, retry_after_ms, seconds_to_ms, sized, unless};

/// How an instance's refusals are read where the lane's settings don't say: there is no batch-receiver with a setting of
/// its own for it, and the existing batcher was made for Lemmy. Lemmy's habits show in the bodies of 400 only.
const PROFILE: Profile = Profile::Lemmy;

/// Longest answer, bytes for each activity: an instance's headers, and an error page of a proxy in front of it, escaped.
const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// An answer of this length is read in any case: one error page may be large.
const ANSWER_BYTES_MIN: usize = 4 * 1024 * 1024;

/// How long a refusal's few bytes may take after its head.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Beginning of a refusal that is shown: people read it in one line.
const SHOWN_CHARS: usize = 200;

/// Bounds of a v1 batch.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Its size.
    pub batch_bytes: usize,
    /// From the first byte to the last one of the answer.
    pub answer_timeout: Duration,
}

/// The size of an activity in a v1 batch.
///
/// # Errors
/// It can't go to a v1 receiver.
pub fn bytes_of(item: &BatchItem, batch_bytes: usize) -> Result<usize, Unfit> {
    carrying(item, batch_bytes).map(|item| item.encoded_bytes())
}

fn carrying(item: &BatchItem, most: usize) -> Result<Item, Unfit> {
    let item = Item::carrying(item)?;
    let found = item.encoded_bytes() + BATCH_OVERHEAD_BYTES;
    if found > most { Err(Unfit::TooLarge { found, most }) } else { Ok(item) }
}

/// What of a batch can go: it ends before the first activity that can't.
struct Fitting {
    items: Vec<Item>,
    unfit: Option<(Seq, Unfit)>,
}

impl Fitting {
    fn of(batch: &Batch, most: usize) -> Self {
        let mut items = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            match carrying(item, most) {
                Ok(item) => items.push(item),
                Err(unfit) => return Self { items, unfit: Some((item.seq, unfit)) },
            }
        }
        Self { items, unfit: None }
    }

    /// How a batch ends of which all that could go is settled.
    fn end(self) -> Ended {
        let Some((seq, unfit)) = self.unfit else { return Ended { end: End::Done, cause: None } };
        let cause = format!(
            "sequence {seq} can't go to a v1 batch-receiver: {unfit}. It waits for a batch-receiver of fedstream (v2), or \
             for `fedctl park`"
        );
        Ended::because(End::Refused { retry_after_ms: None }, cause)
    }
}

impl Link {
    pub(super) async fn post_v1<F, S>(
        &self,
        batch: &Batch,
        traceparent: Option<String>,
        called_off: &CancellationToken,
        mut settle: F,
    ) -> Ended
    where
        F: FnMut(Seq, Answer) -> S,
        S: Future<Output = ()>,
    {
        let fitting = Fitting::of(batch, self.v1.batch_bytes);
        if fitting.items.is_empty() {
            return fitting.end();
        }
        let _measured = Measured::begin(fitting.items.len());
        let header = &batch.header;
        let owner = Owner { lane: header.lane.clone(), origin: header.origin.clone(), epoch: header.epoch };
        let exchange = self.exchange_v1(&fitting.items, traceparent, &owner);
        let exchange = tokio::time::timeout(self.v1.answer_timeout, exchange);
        // Only the wait can be called off. Once the answer is here all of it is settled: the refusals in it may be the very
        // reason for calling it off, and what stands behind them was delivered.
        let Some(exchanged) = unless(called_off, exchange).await else { return Ended::called_off() };
        let answer = match exchanged {
            Err(_) => return self.lost(format!("no whole answer within {:?}", self.v1.answer_timeout)),
            Ok(Err(ended)) => return ended,
            Ok(Ok(answer)) => answer,
        };
        let asked = fitting.items.iter().map(|item| item.activity_id.as_str());
        let report = match v1::answer::read(&answer, asked) {
            Ok(report) => report,
            Err(error) => return self.lost(format!("the batch-receiver's answer settles nothing: {error}")),
        };
        let Outcomes { finals, again } = report.outcomes(batch.header.profile.unwrap_or(PROFILE));
        let settled = finals.len();
        for (item, answer) in batch.items.iter().zip(finals) {
            settle(item.seq, answer).await;
        }
        match (again, batch.items.get(settled)) {
            (Some(again), Some(item)) => {
                let retry_after_ms = again.retry_after_s.map(seconds_to_ms);
                // A v1 receiver says nothing of what it knows of the instance: no evidence against the activity.
                let end = End::Retry { seq: item.seq, status: Some(again.status), alive: false, retry_after_ms };
                Ended::because(end, again.cause)
            }
            _ => fitting.end(),
        }
    }

    /// Posts, and reads the answer of a 2xx. What else comes is how it ended.
    async fn exchange_v1(&self, items: &[Item], traceparent: Option<String>, owner: &Owner) -> Result<BytesMut, Ended> {
        let request = self
            .request(traceparent)
            .header(CONTENT_TYPE, v1::CONTENT_TYPE)
            .header(ACCEPT, v1::CONTENT_TYPE)
            .header(OWNER_HEADER, owner.header())
            .body(sized(v1::batch::encode(items)));
        let mut response = request.send().await.map_err(|error| self.lost(chain(&error.without_url())))?;
        self.note_answer(&response);
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let most = ANSWER_BYTES_MIN.max(items.len().saturating_mul(ENTRY_BYTES_MAX));
        let mut answer = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(chain(&error.without_url())))? {
            if answer.len() + chunk.len() > most {
                return Err(self.lost(format!("the batch-receiver's answer has more than {most} bytes")));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer)
    }
}

/// An answer that isn't 2xx: nothing of the batch is settled.
async fn refused(mut response: Response) -> Ended {
    let status = response.status();
    let retry_after_ms = retry_after_ms(&response);
    let body = refusal_body(&mut response, REFUSAL_TIMEOUT).await;
    let said: String = String::from_utf8_lossy(&body).split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().take(SHOWN_CHARS).collect();
    let cause = match said.as_str() {
        "" => format!("the batch-receiver answered {status}"),
        said => format!("the batch-receiver answered {status}: {said}"),
    };
    Ended::because(meaning(status, retry_after_ms), cause)
}

fn meaning(status: StatusCode, retry_after_ms: Option<u64>) -> End {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => End::Overloaded { retry_after_ms },
        // Too large, or something in it that this receiver does not take: smaller batches show which one it is.
        StatusCode::BAD_REQUEST
        | StatusCode::FORBIDDEN
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => End::Unfit,
        // An older one says 500 to a batch of which an activity failed; what it began with may be delivered.
        status if status.is_server_error() => End::Lost,
        _ => End::Refused { retry_after_ms },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fedstream_lane::{Epoch, Lane, MsgId, Origin};
    use fedstream_service::config::{Environment, load_from};
    use fedstream_wire::v2::BatchHeader;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn item(seq: u64, target: &str) -> BatchItem {
        BatchItem {
            seq: Seq(seq),
            msg_id: MsgId::new("m"),
            received_at_us: 1_719_784_076_123_456,
            scheme: "https".into(),
            target: target.into(),
            http: vec![("Host".into(), Bytes::from_static(b"home.test"))],
            body: Bytes::from(vec![b'x'; 900]),
            activity_id: format!("https://a.test/{seq}"),
            traceparent: None,
            tracestate: None,
        }
    }

    fn batch(targets: &[&str]) -> Batch {
        let header = BatchHeader {
            origin: Origin { site: "near".into(), created_us: 0 },
            lane: Lane::from_subject("fed.inbox.home_test.a_test").expect("a lane"),
            epoch: Epoch(1),
            gate: Some(super::super::V1_GATE),
            floor: Seq(0),
            prev: Seq(0),
            profile: None,
        };
        let items = (1..).zip(targets).map(|(seq, target)| item(seq, target)).collect();
        Batch { header, items }
    }

    #[test]
    fn a_batch_ends_before_the_first_activity_that_cannot_go() {
        let fitting = Fitting::of(&batch(&["/inbox", "/inbox", "/inbox?x", "/inbox"]), 1 << 20);
        assert_eq!(fitting.items.len(), 2);
        let ended = fitting.end();
        assert_eq!(ended.end, End::Refused { retry_after_ms: None });
        assert!(ended.cause.is_some_and(|cause| cause.contains("sequence 3 can't go") && cause.contains("query")));
        let whole = Fitting::of(&batch(&["/inbox"]), 1 << 20).end();
        assert_eq!((whole.end, whole.cause), (End::Done, None));
    }

    #[test]
    fn an_activity_that_is_too_large_alone_cannot_go_and_the_size_of_the_others_is_that_of_the_batch() {
        let batch = batch(&["/inbox", "/inbox"]);
        let sizes: usize = batch.items.iter().map(|item| bytes_of(item, 1 << 20).expect("it can go")).sum();
        let encoded = v1::batch::encode(&Fitting::of(&batch, 1 << 20).items);
        assert!(
            encoded.len() <= sizes + BATCH_OVERHEAD_BYTES && encoded.len() + 8 > sizes,
            "{} {sizes}",
            encoded.len()
        );
        assert!(matches!(bytes_of(&batch.items[0], 1000), Err(Unfit::TooLarge { most: 1000, .. })));
    }

    /// A receiver that reads one batch, and gives `answer` once `go` is sent.
    async fn receiver(answer: Vec<u8>, go: tokio::sync::oneshot::Receiver<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut read = Vec::new();
            while !read.ends_with(b"}]") {
                stream.read_buf(&mut read).await.expect("the batch");
            }
            if go.await.is_ok() {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
                stream.write_all(head.as_bytes()).await.expect("the head");
                stream.write_all(&answer).await.expect("the answer");
            }
            let _closed = stream.read(&mut [0]).await; // held open until then
        });
        address.to_string()
    }

    fn link(address: &str) -> Link {
        drop(rustls::crypto::ring::default_provider().install_default()); // or another test has
        let pairs = [
            ("FED_SITE", "near"),
            ("BATCH_PROTOCOL", "v1"),
            ("BATCH_RECEIVER_PROTOCOL", "http"),
            ("BATCH_RECEIVER_DOMAIN", address),
        ];
        Link::new(&load_from(&crate::SERVICE, &Environment::from_pairs(&pairs)).expect("a configuration"))
            .expect("a link")
    }

    fn refusals(batch: &Batch) -> Vec<u8> {
        let entries = batch.items.iter().map(|item| v1::Entry {
            time: fedstream_wire::from_micros(item.received_at_us).expect("a time"),
            activity_id: item.activity_id.clone(),
            status: 403,
            headers: Vec::new(),
            content_type: None,
            body: None,
        });
        v1::answer::encode(&entries.collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn outcomes_in_hand_are_settled_though_the_post_is_called_off_over_the_first_of_them() {
        const MANY: usize = 300; // more than a task does before it lets others go first
        let batch = batch(&["/inbox"; MANY]);
        let (go, told) = tokio::sync::oneshot::channel();
        let link = link(&receiver(refusals(&batch), told).await);
        let (called_off, mut settled) = (CancellationToken::new(), Vec::new());
        go.send(()).expect("it waits");
        let ended = link
            .post(&batch, None, &called_off, |seq, _| {
                settled.push(seq.0);
                called_off.cancel();
                tokio::task::yield_now()
            })
            .await;
        assert_eq!((ended.end, settled), (End::Done, (1..=MANY as u64).collect()));
    }

    #[tokio::test]
    async fn called_off_while_it_waits_it_settles_nothing_and_is_no_failure() {
        let batch = batch(&["/inbox"]);
        let (_never, told) = tokio::sync::oneshot::channel();
        let link = link(&receiver(refusals(&batch), told).await);
        let called_off = CancellationToken::new();
        called_off.cancel();
        let ended = link.post(&batch, None, &called_off, |_, _| async { panic!("there is no answer") }).await;
        assert_eq!(ended, Ended::called_off());
    }

    #[test]
    fn statuses_of_a_refusal() {
        let of = |status: u16| meaning(StatusCode::from_u16(status).expect("a status"), Some(7000));
        assert_eq!(of(503), End::Overloaded { retry_after_ms: Some(7000) });
        assert_eq!(of(429), End::Overloaded { retry_after_ms: Some(7000) });
        assert_eq!((of(413), of(422)), (End::Unfit, End::Unfit));
        assert_eq!((of(500), of(502)), (End::Lost, End::Lost));
        for status in [301, 401, 404, 405, 409] {
            assert_eq!(of(status), End::Refused { retry_after_ms: Some(7000) }, "{status}");
        }
    }
}
