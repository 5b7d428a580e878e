//! The existing batch-receiver, as far as a sender can tell (`wire-v1.md`): one batch, one activity after the other, one
//! answer at the end. It knows neither v2 nor compression, and nothing of what came before.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fedstream_tests::door::Door;
use fedstream_tests::http1::{Connection, Head, Reader, Response};
use fedstream_tests::message::Message;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// 20 MB.
const BODY_MAX: usize = 20_000_000;

/// What it makes of an activity that the instance answers 408, 429 or 5xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The array ends with it.
    Newer,
    /// 500 for the whole batch.
    Older,
}

/// Instead of its own answer to a batch.
#[derive(Clone, Debug)]
pub enum Lie {
    /// Before anything is delivered.
    Instead(u16, &'static str),
    /// All is delivered, and this is made of the array.
    After(fn(&mut Vec<Value>)),
    /// All is delivered, and the connection ends without an answer.
    Lost,
}

/// One batch that came.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its head.
    pub head: Head,
    /// Bytes of its body.
    pub bytes: usize,
    /// Activities in it; none where it was not read as a batch.
    pub items: Option<usize>,
    /// Whether another one was not over when it came.
    pub overlaps: bool,
}

/// It listens when told to, and is gone on drop.
pub struct Former {
    door: Door,
    shared: Arc<Shared>,
}

struct Shared {
    instance: SocketAddr,
    credential: String,
    state: Mutex<State>,
}

struct State {
    version: Version,
    lies: VecDeque<Lie>,
    batches: Vec<Batch>,
    gets: usize,
    in_progress: usize,
}

impl Former {
    /// One that does not listen yet.
    pub fn at(listen: SocketAddr, instance: SocketAddr, credential: &str) -> Self {
        let state =
            State { version: Version::Newer, lies: VecDeque::new(), batches: Vec::new(), gets: 0, in_progress: 0 };
        let shared = Shared { instance, credential: format!("Bearer {credential}"), state: Mutex::new(state) };
        Self { door: Door::at(listen), shared: Arc::new(shared) }
    }

    /// Listens.
    pub async fn come_up(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        self.door.open(|listener| accept(listener, shared)).await
    }

    /// Ends, in the middle of whatever it does.
    pub async fn go_down(&mut self) {
        self.door.close().await;
    }

    /// It behaves as this version from now on.
    pub fn be(&self, version: Version) {
        self.shared.state().version = version;
    }

    /// The next `count` batches are answered so.
    pub fn lie(&self, count: usize, lie: &Lie) {
        self.shared.state().lies.extend(std::iter::repeat_n(lie.clone(), count));
    }

    /// It answers as it should from now on.
    pub fn be_honest(&self) {
        self.shared.state().lies.clear();
    }

    /// How many lies are left to tell.
    pub fn lies_left(&self) -> usize {
        self.shared.state().lies.len()
    }

    /// What came so far.
    pub fn batches(&self) -> Vec<Batch> {
        self.shared.state().batches.clone()
    }

    /// How often it was asked with a GET.
    pub fn gets(&self) -> usize {
        self.shared.state().gets
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.spawn(serve(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = Reader::new(reader);
    while let Some(head) = reader.head().await? {
        let body = reader.request_body(&head).await?;
        let (status, body) = if head.start.starts_with("POST /batch ") {
            let visit = Visit::begin(&shared, head, &body);
            let Some(answer) = visit.answer(&body).await else { return Ok(()) };
            answer
        } else {
            shared.state().gets += 1;
            detail(405, "Method Not Allowed")
        };
        let head = format!(
            "HTTP/1.1 {status} As told\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all(head.as_bytes()).await?;
        writer.write_all(body.as_bytes()).await?;
    }
    Ok(())
}

/// A batch while it works on it.
struct Visit<'a> {
    shared: &'a Shared,
    head: Head,
    number: usize,
}

impl<'a> Visit<'a> {
    fn begin(shared: &'a Shared, head: Head, body: &Bytes) -> Self {
        let mut guard = shared.state();
        let state = &mut *guard;
        let batch = Batch { head: head.clone(), bytes: body.len(), items: None, overlaps: state.in_progress > 0 };
        state.in_progress += 1;
        state.batches.push(batch);
        Self { shared, head, number: state.batches.len() - 1 }
    }

    async fn answer(self, body: &Bytes) -> Option<(u16, String)> {
        if self.head.header("authorization") != Some(&self.shared.credential) {
            return Some(detail(401, "Unauthorized"));
        }
        if body.len() > BODY_MAX {
            return Some(detail(413, "Request Entity Too Large"));
        }
        let json = self.head.header("content-type") == Some("application/json");
        let Some(items) = serde_json::from_slice::<Vec<Value>>(body).ok().filter(|_| json) else {
            return Some(detail(422, "Unprocessable Entity"));
        };
        let (lie, version) = {
            let mut state = self.shared.state();
            state.batches[self.number].items = Some(items.len());
            (state.lies.pop_front(), state.version)
        };
        if let Some(Lie::Instead(status, body)) = lie {
            return Some((status, body.to_owned()));
        }
        let mut entries = Vec::new();
        for item in &items {
            let Ok(response) = deliver(self.shared.instance, item).await else {
                return Some((500, "Internal Server Error".to_owned()));
            };
            let tolerable = !matches!(response.status, 408 | 429 | 500..600);
            entries.push(entry(item, &response));
            match (tolerable, version) {
                (true, _) => {}
                (false, Version::Older) => return Some((500, "Internal Server Error".to_owned())),
                (false, Version::Newer) => break,
            }
        }
        match lie {
            Some(Lie::Lost) => return None,
            Some(Lie::After(change)) => change(&mut entries),
            _ => {}
        }
        Some((200, Value::from(entries).to_string()))
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.shared.state().in_progress -= 1;
    }
}

async fn deliver(instance: SocketAddr, item: &Value) -> io::Result<Response> {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let headers = item["headers"].as_array().expect("an array").iter();
    let message = Message {
        method: "POST".to_owned(),
        target: text(&item["path"]),
        headers: headers.map(|header| (text(&header[0]), text(&header[1]))).collect(),
        body: STANDARD.decode(text(&item["b64_body"])).expect("base64").into(),
    };
    assert_eq!(message.header("host").as_deref(), item["host"].as_str(), "said twice");
    Connection::open(instance).await?.exchange(&message.to_bytes()).await
}

fn entry(item: &Value, response: &Response) -> Value {
    // Told by the length, so there is none of an answer that came in chunks, as a compressed one does.
    let length = response.header("content-length").and_then(|length| length.parse::<u64>().ok());
    let body = length.filter(|length| *length > 0).map(|_| String::from_utf8_lossy(&response.body));
    json!({
        "time": "2024-06-30T21:47:56.123456+00:00",
        "activity_id": item["activity_id"],
        "status": response.status,
        "headers": response.headers,
        "content_type": response.header("content-type"),
        "body": body,
    })
}

fn detail(status: u16, detail: &str) -> (u16, String) {
    (status, json!({ "detail": detail }).to_string())
}
