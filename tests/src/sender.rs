//! A sending instance that behaves as Lemmy 0.19 does: one kept connection, one activity at a time, and a queue that
//! waits behind whatever is not answered finally.
//!
//! Its clock runs faster: attempts at once, at once, then after a growing pause, of milliseconds instead of seconds.
//! Every retry is signed anew. Retry-After is ignored, as Lemmy ignores it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;
use crate::http1::{Connection, Response};
use crate::ledger::{Entry, Ledger};
use crate::message::Message;
use crate::sign::{self, Identity, Kind, Post};
use crate::verify;

/// What Lemmy takes as final: the activity leaves its queue.
const FINAL: [u16; 6] = [400, 401, 403, 404, 410, 413];

/// An activity that is not signed yet.
#[derive(Clone, Debug)]
pub struct Activity {
    /// Its id.
    pub id: String,
    /// The body.
    pub body: Bytes,
}

/// One source towards one destination. The fields may be changed between two sends.
pub struct Sender {
    /// Who signs.
    pub identity: Identity,
    /// `Host` of the requests.
    pub destination: String,
    /// Where the connection goes.
    pub front: SocketAddr,
    /// More doors of the same front, as behind a load balancer: the next one is tried after a try that was not answered
    /// finally.
    pub more_fronts: VecDeque<SocketAddr>,
    /// Path and query. `/inbox`.
    pub target: String,
    /// Cavage.
    pub kind: Kind,
    /// Scheme of the destination's URL, covered by RFC 9421: `https`, the front's default for what it can't see.
    pub scheme: String,
    /// Pause before the third try; it grows by a quarter each time.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// Lemmy waits 125 s, 10 s in older versions.
    pub answer_timeout: Duration,
    /// Between the ends of one send and the start of the next, in [`Sender::send_until`]: zero, as fast as it goes.
    pub pace: Duration,
    /// Bytes of text in each note: about 1 KiB makes a body of 2 KiB, the middle of the captured ones.
    pub text_bytes: usize,
    ledger: Ledger,
    connection: Option<Connection>,
    composed: u64,
}

impl Sender {
    /// A source that posts to `/inbox` of a destination through `front`; its key is entered into `keys`.
    #[must_use]
    pub fn new(source: &str, destination: &str, front: SocketAddr, keys: &Directory, ledger: &Ledger) -> Self {
        let identity = Identity::of(source);
        keys.enter(&identity.key_id, identity.key.public_pem()).expect("our own PEM");
        Self {
            identity,
            destination: destination.to_owned(),
            front,
            more_fronts: VecDeque::new(),
            target: "/inbox".to_owned(),
            kind: Kind::Cavage,
            scheme: "https".to_owned(),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_millis(500),
            answer_timeout: Duration::from_secs(20),
            pace: Duration::ZERO,
            text_bytes: 1024,
            ledger: ledger.clone(),
            connection: None,
            composed: 0,
        }
    }

    /// `<destination>/<source>`.
    #[must_use]
    pub fn lane(&self) -> String {
        format!("{}/{}", self.destination, self.identity.host)
    }

    /// The next activity: a comment that its community announces. Ids are unique over processes.
    pub fn compose(&mut self) -> Activity {
        self.composed += 1;
        let host = &self.identity.host;
        let unique = format!("{:016x}-{}", fastrand::u64(..), self.composed);
        let id = format!("http://{host}/activities/announce/create/{unique}");
        let text = format!("comment {} {}", self.composed, "ż🟢 ".repeat(self.text_bytes / 7));
        let public = "https://www.w3.org/ns/activitystreams#Public";
        let body = json!({
            "@context": ["https://join-lemmy.org/context.json", "https://www.w3.org/ns/activitystreams"],
            "actor": format!("http://{host}/c/main"),
            "to": [public],
            "object": {
                "id": format!("http://{host}/activities/create/{unique}"),
                "actor": format!("http://{host}/u/bob"),
                "to": [public],
                "object": {
                    "type": "Note",
                    "id": format!("http://{host}/comment/{}", self.composed),
                    "attributedTo": format!("http://{host}/u/bob"),
                    "content": format!("<p>{text}</p>\n"),
                    "source": {"content": text, "mediaType": "text/markdown"},
                    "audience": format!("http://{host}/c/main"),
                },
                "type": "Create",
            },
            "cc": [format!("http://{host}/c/main/followers")],
            "type": "Announce",
            "id": id,
        });
        Activity { id, body: Bytes::from(body.to_string()) }
    }

    /// Composes one activity and sends it until it is answered finally. What goes wrong on the wire is retried.
    pub async fn send_one(&mut self) -> Response {
        let activity = self.compose();
        self.send(&activity).await
    }

    /// Sends `count` activities, one after the other, and panics on a refusal that Lemmy would take as final: none is
    /// expected where this is used.
    ///
    /// # Panics
    /// As said.
    pub async fn send_many(&mut self, count: usize) {
        for _ in 0..count {
            let response = self.send_one().await;
            assert!(response.status < 300, "{}: {} {:?}", self.lane(), response.status, response.body);
        }
    }

    /// Sends one after the other until told to stop; the last one is finished first. Says how many.
    pub async fn send_until(&mut self, stop: &CancellationToken) -> usize {
        let mut count = 0;
        while !stop.is_cancelled() {
            self.send_one().await;
            count += 1;
            // Cut short by the end, so that nobody waits for a pause.
            let _paced = tokio::time::timeout(self.pace, stop.cancelled()).await;
        }
        count
    }

    /// Sends an activity, signed anew for each try, until it is answered finally.
    pub async fn send(&mut self, activity: &Activity) -> Response {
        let entry = self.ledger.begin(&self.lane(), &activity.id, &activity.body);
        let mut failures = 0;
        loop {
            let message = self.signed(activity);
            if let Some(response) = settled(self.attempt(entry, &message).await) {
                return response;
            }
            failures += 1;
            self.next_front();
            tokio::time::sleep(self.pause(failures)).await;
        }
    }

    /// Sends a request as it is, with the signature that it has, until it is answered finally.
    pub async fn send_verbatim(&mut self, message: &Message) -> Response {
        let destination = message.header("host").unwrap_or_default();
        let lane = format!("{destination}/{}", verify::source_of(message).unwrap_or_default());
        let entry = self.ledger.begin(&lane, &message.activity_id().unwrap_or_default(), &message.body);
        let mut failures = 0;
        loop {
            if let Some(response) = settled(self.attempt(entry, message).await) {
                return response;
            }
            failures += 1;
            tokio::time::sleep(self.pause(failures)).await;
        }
    }

    /// Sends an activity once, and does not enter it into the ledger unless it is accepted.
    ///
    /// # Errors
    /// What happens on the connection.
    pub async fn try_once(&mut self, activity: &Activity) -> io::Result<Response> {
        let message = self.signed(activity);
        let sent = Instant::now();
        let response = self.exchange(&message).await?;
        if response.status < 300 {
            let entry = self.ledger.begin_at(sent, &self.lane(), &activity.id, &activity.body);
            self.ledger.sending(entry, &message);
            self.ledger.answered(entry, response.status);
        }
        Ok(response)
    }

    /// The activity as a request, signed now.
    #[must_use]
    pub fn signed(&self, activity: &Activity) -> Message {
        let post = Post { host: &self.destination, target: &self.target, scheme: &self.scheme, body: &activity.body };
        sign::sign(self.kind, &self.identity, &post, SystemTime::now())
    }

    async fn attempt(&mut self, entry: Entry, message: &Message) -> io::Result<Response> {
        self.ledger.sending(entry, message);
        let answer = self.exchange(message).await;
        self.ledger.answered(entry, answer.as_ref().map_or(0, |response| response.status));
        answer
    }

    /// One try on the kept connection, or on a new one.
    async fn exchange(&mut self, message: &Message) -> io::Result<Response> {
        let bytes = message.to_bytes();
        let mut connection = match self.connection.take() {
            Some(kept) => kept,
            None => Connection::open(self.front).await?,
        };
        let answer = tokio::time::timeout(self.answer_timeout, connection.exchange(&bytes)).await;
        let response = answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.connection = Some(connection).filter(Connection::reusable);
        Ok(response)
    }

    fn next_front(&mut self) {
        if let Some(next) = self.more_fronts.pop_front() {
            self.more_fronts.push_back(std::mem::replace(&mut self.front, next));
            self.connection = None;
        }
    }

    fn pause(&self, failures: i32) -> Duration {
        if failures < 2 {
            return Duration::ZERO;
        }
        self.backoff_min.mul_f64(1.25_f64.powi((failures - 2).min(30))).min(self.backoff_max)
    }
}

fn settled(answer: io::Result<Response>) -> Option<Response> {
    answer.ok().filter(|response| response.status < 300 || FINAL.contains(&response.status))
}
