//! The application's outboxes: an ActivityPub collection of each user, the newest first, with pages as Mastodon has them: addressed
//! by the activity at their bound, `prev` on each of them, behind the newest an empty one, and the `@context` on the page alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::sent::activity;
use crate::door::Door;
use crate::http1::Reader;

/// Activities on a page, as Mastodon has it.
const PAGE: usize = 20;

/// What all users have: activities that are numbered from 1 on.
#[derive(Clone, Copy)]
struct History {
    activities: usize,
    /// When the newest was published, and how long after the one before; none says when.
    dated: Option<(OffsetDateTime, Duration)>,
}

impl History {
    /// As it stands on a page.
    fn item(&self, number: usize, actor: &str) -> Value {
        let mut item = activity(&id(actor, number), actor);
        if let Some(members) = item.as_object_mut() {
            members.remove("@context");
        }
        let published = self.dated.and_then(|(newest, apart)| {
            let before = apart * u32::try_from(self.activities - number).ok()?;
            (newest - before).format(&Rfc3339).ok()
        });
        if let Some(published) = published {
            item["published"] = published.into();
        }
        item
    }
}

/// An application with a history of so many activities for each of its users. Gone on drop.
pub struct Outboxes {
    door: Door,
    pages: Arc<AtomicUsize>,
}

impl Outboxes {
    /// On a free port.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn start(activities: usize) -> std::io::Result<Self> {
        Self::of(History { activities, dated: None }).await
    }

    /// The same, where one was published at a time, so far apart, the newest of them now.
    ///
    /// # Errors
    /// As [`Outboxes::start`].
    pub async fn start_dated(activities: usize, apart: Duration) -> std::io::Result<Self> {
        Self::of(History { activities, dated: Some((OffsetDateTime::now_utc(), apart)) }).await
    }

    async fn of(history: History) -> std::io::Result<Self> {
        let mut door = Door::closed();
        let pages = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pages);
        door.open(|listener| accept(listener, history, counted)).await?;
        Ok(Self { door, pages })
    }

    /// Where the worker reads them: FED_OUTBOX_URL_TEMPLATE.
    #[must_use]
    pub fn template(&self) -> String {
        format!("http://{}/users/{{owner}}/outbox", self.door.addr())
    }

    /// The `@context` of a page.
    #[must_use]
    pub fn context() -> Value {
        json!(["https://www.w3.org/ns/activitystreams", { "ostatus": "http://ostatus.org#" }])
    }

    /// Pages that were read.
    #[must_use]
    pub fn pages_read(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    /// The history of a user, oldest first: the ids.
    pub fn history(actor: &str, activities: usize) -> impl Iterator<Item = String> {
        (1..=activities).map(move |number| id(actor, number))
    }
}

/// Numbers are from 1 on, and as long as those that applications number by.
fn id(actor: &str, number: usize) -> String {
    format!("http://our.test/activities/{actor}/history/{number:012}")
}

async fn accept(listener: TcpListener, history: History, pages: Arc<AtomicUsize>) {
    let addr = listener.local_addr().ok();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let (Ok((stream, _)), Some(addr)) = (accepted, addr) {
                let pages = Arc::clone(&pages);
                // A connection's error is its end.
                connections.spawn(async move { serve(stream, addr, history, &pages).await.is_ok() });
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, addr: SocketAddr, history: History, pages: &AtomicUsize) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = Reader::new(reader);
    while let Some(head) = reader.head().await? {
        reader.request_body(&head).await?;
        let target = head.start.split(' ').nth(1).unwrap_or_default();
        let body = document(addr, target, history, pages).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        writer.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await?;
    }
    Ok(())
}

/// The collection, or one of its pages.
fn document(addr: SocketAddr, target: &str, history: History, pages: &AtomicUsize) -> Value {
    let activities = history.activities;
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let actor = path.split('/').nth(2).unwrap_or_default();
    let url = |bound: &str| format!("http://{addr}{path}?page=true{bound}");
    let Some(query) = query else {
        return json!({ "type": "OrderedCollection", "first": url(""), "last": url("&min_id=0") });
    };
    pages.fetch_add(1, Ordering::Relaxed);
    let bound = |name: &str| -> Option<usize> {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    let newest = match (bound("min_id"), bound("max_id")) {
        (Some(above), _) => activities.min(above + PAGE),
        (None, Some(below)) => activities.min(below.saturating_sub(1)),
        (None, None) => activities,
    };
    let oldest = bound("min_id").map_or(newest.saturating_sub(PAGE), |above| above.min(newest)) + 1;
    let items: Vec<Value> = (oldest..=newest).rev().map(|number| history.item(number, actor)).collect();
    let context = Outboxes::context();
    let mut document =
        json!({ "@context": context, "id": url(""), "type": "OrderedCollectionPage", "orderedItems": items });
    if oldest <= newest {
        document["prev"] = url(&format!("&min_id={newest:012}")).into();
        document["next"] = url(&format!("&max_id={oldest:012}")).into();
    }
    document
}
