//! The instance at the far end: verifies and records all it gets, takes its time, and misbehaves when told to.
//!
//! Its own HTTP/1.1, so that names, order and target are seen as they arrive. It accepts a repeat, and counts it. As
//! many requests at a time as there are connections; that no source has two in progress is recorded, not enforced.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::behaviour::{Behaviour, Behaviours};
use crate::coding::Coding;
use crate::directory::Directory;
use crate::door::Door;
use crate::eventually::{TimedOut, becomes_true};
use crate::http1::{Head, Reader};
use crate::message::Message;
use crate::sign::Kind;
use crate::verify;

/// A Lemmy closes an idle connection after about 5 s.
const IDLE: Duration = Duration::from_secs(5);

/// One request, in the order of arrival.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The request as it was on the wire.
    pub message: Message,
    /// The activity's id, empty if it has none.
    pub id: String,
    /// `<destination>/<source>`: `Host`, and the host of the key id.
    pub lane: String,
    /// When its last byte had come.
    pub arrived: Instant,
    /// When the instance was done with it, if it is.
    pub ended: Option<Instant>,
    /// The final or retryable status; for a lost answer the status that was lost; `None` while or if there is none.
    pub status: Option<u16>,
    /// Whether the answer was sent.
    pub answered: bool,
    /// What the signature proved.
    pub signature: Result<Kind, verify::Error>,
    /// Whether another request of its lane was in progress when it arrived.
    pub overlaps: bool,
}

impl Seen {
    /// Whether the instance took it: 2xx, sent or lost.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether its outcome is final (DESIGN section 7): accepted or rejected.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.accepted() || self.status.is_some_and(|s| (400..500).contains(&s) && s != 408 && s != 429)
    }
}

/// A listening instance. Gone on drop.
pub struct Instance {
    door: Door,
    shared: Arc<Shared>,
}

struct Shared {
    keys: Directory,
    state: Mutex<State>,
    /// Ends what hangs.
    released: watch::Sender<u64>,
    /// Stopped in the middle of whatever it does.
    frozen: watch::Sender<bool>,
}

struct State {
    seen: Vec<Seen>,
    in_progress: HashMap<String, usize>,
    /// Lane and id of what was accepted.
    accepted: HashMap<(String, String), usize>,
    /// Lane and id of what had a final outcome.
    settled: HashSet<(String, String)>,
    behaviours: Behaviours,
    service_time: Duration,
    /// Scheme of the URL when no X-Forwarded-Proto says it.
    scheme: String,
    clock: Option<SystemTime>,
    /// What a GET is answered.
    probe_status: u16,
}

impl Instance {
    /// An instance on a free port that knows these keys.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn start(keys: Directory) -> std::io::Result<Self> {
        let state = State {
            seen: Vec::new(),
            in_progress: HashMap::new(),
            accepted: HashMap::new(),
            settled: HashSet::new(),
            behaviours: Behaviours::default(),
            service_time: Duration::ZERO,
            scheme: "https".to_owned(),
            clock: None,
            probe_status: 200,
        };
        let shared = Arc::new(Shared {
            keys,
            state: Mutex::new(state),
            released: watch::Sender::new(0),
            frozen: watch::Sender::new(false),
        });
        let mut instance = Self { door: Door::closed(), shared };
        instance.come_up().await?;
        Ok(instance)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.door.addr()
    }

    /// How long it works on each request.
    pub fn set_service_time(&self, time: Duration) {
        self.shared.state().service_time = time;
    }

    /// The scheme of its URLs: who posts to it without a proxy in between signs for `http`.
    pub fn set_scheme(&self, scheme: &str) {
        self.shared.state().scheme = scheme.to_owned();
    }

    /// The time by which it judges signatures; `None` is now.
    pub fn set_clock(&self, clock: Option<SystemTime>) {
        self.shared.state().clock = clock;
    }

    /// What it answers to a GET, of any page: 200 until told otherwise.
    pub fn set_probe_status(&self, status: u16) {
        self.shared.state().probe_status = status;
    }

    /// What it does from now on, until changed. What hangs is let go.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.state().behaviours.always(behaviour);
        self.release();
    }

    /// What it does with the next `count` requests.
    pub fn behave_next(&self, count: usize, behaviour: Behaviour) {
        self.shared.state().behaviours.next(count, behaviour);
    }

    /// What it does with requests that `matches` says yes to, `count` times (`None`: always).
    pub fn behave_where(
        &self,
        count: Option<usize>,
        behaviour: Behaviour,
        matches: impl Fn(&Seen) -> bool + Send + 'static,
    ) {
        self.shared.state().behaviours.matching(count, behaviour, Box::new(matches));
    }

    /// Accepts all again, and lets go what hangs.
    pub fn behave_well(&self) {
        self.shared.state().behaviours = Behaviours::default();
        self.release();
    }

    /// Ends all that hangs, without an answer.
    pub fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// What SIGSTOP does to a process, seen from outside: connections are still made, by the system, and nothing is read
    /// or answered, until [`Instance::thaw`].
    pub fn freeze(&self) {
        self.shared.frozen.send_replace(true);
    }

    /// SIGCONT: it goes on where it was.
    pub fn thaw(&self) {
        self.shared.frozen.send_replace(false);
    }

    /// Closes the listener and all connections, in the middle of what they do.
    pub async fn go_down(&mut self) {
        self.door.close().await;
    }

    /// Listens, on the same port as before.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn come_up(&mut self) -> std::io::Result<()> {
        let shared = self.shared.clone();
        self.door.open(|listener| accept(listener, shared)).await
    }

    /// All requests, in the order of arrival.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// How many requests came.
    #[must_use]
    pub fn arrivals(&self) -> usize {
        self.shared.state().seen.len()
    }

    /// How many requests it works on now.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.shared.state().in_progress.values().sum()
    }

    /// How many different activities it accepted, over all lanes.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted.len()
    }

    /// How many different activities it accepted on one lane.
    #[must_use]
    pub fn accepted_on(&self, lane: &str) -> usize {
        self.shared.state().accepted.keys().filter(|(l, _)| l == lane).count()
    }

    /// Whether an activity of a lane has had a final outcome.
    #[must_use]
    pub fn has_settled(&self, lane: &str, id: &str) -> bool {
        self.shared.state().settled.contains(&(lane.to_owned(), id.to_owned()))
    }

    /// How many different activities have their final outcome.
    #[must_use]
    pub fn settled(&self) -> usize {
        self.shared.state().settled.len()
    }

    /// Waits until it has accepted `count` different activities.
    ///
    /// # Errors
    /// It has not in time; the error says how many it has.
    pub async fn wait_accepted(&self, count: usize, within: Duration) -> Result<(), TimedOut> {
        let what = format!("{count} activities accepted by the instance");
        becomes_true(what, within, || self.accepted() >= count).await.map_err(|timeout| TimedOut {
            what: format!("{} (it has {}, of {} requests)", timeout.what, self.accepted(), self.arrivals()),
            within,
        })
    }
}

/// Connections belong to the accepting task: they end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = shared.accept(&listener) => if let Ok((stream, _)) = accepted {
                let shared = shared.clone();
                // A connection's error is its end.
                connections.spawn(async move { serve(stream, &shared).await.is_ok() });
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = Reader::new(reader);
    while let Ok(Some(head)) = tokio::time::timeout(IDLE, reader.head()).await.unwrap_or(Ok(None)) {
        let body = reader.request_body(&head).await?;
        shared.not_frozen().await;
        let Some(message) = message_of(head, body) else {
            writer.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
            return Ok(());
        };
        if message.method == "GET" {
            // A probe, of a page that is no activity's business: whatever is done to activities, the page is there.
            let status = shared.state().probe_status;
            answer(&mut writer, status, None, "{}", None).await?;
            continue;
        }
        let coding = message.header("accept-encoding").and_then(|takes| Coding::of(&takes));
        // Before it is decided what it does: a release after that is heard.
        let mut released = shared.released.subscribe();
        let visit = Visit::begin(shared.clone(), message);
        let (behaviour, service_time) = (visit.behaviour.clone(), visit.service_time);
        tokio::time::sleep(service_time).await;
        shared.not_frozen().await;
        match behaviour {
            Behaviour::Answer { status, retry_after, body } => {
                visit.end(Some(status), true);
                answer(&mut writer, status, retry_after, &body, coding).await?;
            }
            Behaviour::LoseAnswer { status } => {
                visit.end(Some(status), false);
                return Ok(());
            }
            Behaviour::Reset => {
                visit.end(None, false);
                writer.as_ref().set_zero_linger()?;
                return Ok(());
            }
            Behaviour::Hang => {
                tokio::select! {
                    () = reader.closed() => {}
                    _released = released.changed() => {}
                }
                visit.end(None, false);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn message_of(head: Head, body: bytes::Bytes) -> Option<Message> {
    let mut words = head.start.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Message { method, target, headers: head.headers, body })
}

/// As Lemmy does since 0.18.1: what the sender takes compressed is, and then it has no length.
async fn answer(
    writer: &mut OwnedWriteHalf,
    status: u16,
    retry_after: Option<u64>,
    body: &str,
    coding: Option<Coding>,
) -> std::io::Result<()> {
    let retry_after = retry_after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    if let (Some(coding), false) = (coding, body.is_empty()) {
        let small = coding.compress(body.as_bytes())?;
        let head = format!("content-encoding: {}\r\ntransfer-encoding: chunked", coding.name());
        let mut bytes =
            format!("HTTP/1.1 {status} As told\r\n{head}\r\n{retry_after}\r\n{:x}\r\n", small.len()).into_bytes();
        bytes.extend_from_slice(&small);
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        return writer.write_all(&bytes).await;
    }
    let length = if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    writer.write_all(format!("HTTP/1.1 {status} As told\r\n{length}{retry_after}\r\n{body}").as_bytes()).await
}

/// One request while the instance works on it. Dropped in the middle (going down), it ends without an outcome.
struct Visit {
    shared: Arc<Shared>,
    number: usize,
    lane: String,
    behaviour: Behaviour,
    service_time: Duration,
    open: bool,
}

impl Visit {
    fn begin(shared: Arc<Shared>, message: Message) -> Self {
        let (scheme, clock) = {
            let state = shared.state();
            (message.header("x-forwarded-proto").unwrap_or_else(|| state.scheme.clone()), state.clock)
        };
        // Outside the lock: it takes longer than all the rest.
        let signature = verify::verify(&message, &scheme, &shared.keys, clock.unwrap_or_else(SystemTime::now));
        let source = verify::source_of(&message).unwrap_or_default();
        let lane = format!("{}/{source}", message.header("host").unwrap_or_default());

        let mut guard = shared.state();
        let state = &mut *guard;
        let in_progress = state.in_progress.entry(lane.clone()).or_default();
        *in_progress += 1;
        let seen = Seen {
            id: message.activity_id().unwrap_or_default(),
            lane: lane.clone(),
            arrived: Instant::now(),
            ended: None,
            status: None,
            answered: false,
            signature: signature.map(|verified| verified.kind),
            overlaps: *in_progress > 1,
            message,
        };
        let (number, service_time) = (state.seen.len(), state.service_time);
        let behaviour = match seen.signature {
            Ok(_) => state.behaviours.choose(&seen),
            // As Lemmy answers it.
            Err(_) => Behaviour::rejects(400, r#"{"error":"unknown","message":"invalid signature"}"#),
        };
        state.seen.push(seen);
        drop(guard);
        Self { shared, number, lane, behaviour, service_time, open: true }
    }

    fn end(mut self, status: Option<u16>, answered: bool) {
        self.close(status, answered);
    }

    fn close(&mut self, status: Option<u16>, answered: bool) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let mut guard = self.shared.state();
        let state = &mut *guard;
        if let Some(in_progress) = state.in_progress.get_mut(&self.lane) {
            *in_progress -= 1;
        }
        let seen = &mut state.seen[self.number];
        seen.ended = Some(Instant::now());
        seen.status = status;
        seen.answered = answered;
        if seen.is_final() {
            state.settled.insert((seen.lane.clone(), seen.id.clone()));
        }
        if seen.accepted() {
            *state.accepted.entry((seen.lane.clone(), seen.id.clone())).or_default() += 1;
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.close(None, false);
    }
}

impl Shared {
    async fn accept(&self, listener: &TcpListener) -> std::io::Result<(TcpStream, SocketAddr)> {
        self.not_frozen().await;
        listener.accept().await
    }

    async fn not_frozen(&self) {
        // The sender is our own field: it can't be gone.
        let mut frozen = self.frozen.subscribe();
        let _thawed = frozen.wait_for(|frozen| !frozen).await.is_ok();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
