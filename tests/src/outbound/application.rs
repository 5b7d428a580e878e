//! The application's outboxes: an ActivityPub collection of each user, paged, the newest first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::sent::activity;
use crate::door::Door;
use crate::http1::Reader;

/// Activities on a page, as Mastodon has it.
const PAGE: usize = 20;

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
        let mut door = Door::closed();
        let pages = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pages);
        door.open(|listener| accept(listener, activities, counted)).await?;
        Ok(Self { door, pages })
    }

    /// Where the worker reads them: FED_OUTBOX_URL_TEMPLATE.
    #[must_use]
    pub fn template(&self) -> String {
        format!("http://{}/users/{{owner}}/outbox", self.door.addr())
    }

    /// Pages that were read.
    #[must_use]
    pub fn pages_read(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    /// The history of a user, oldest first: the ids.
    pub fn history(actor: &str, activities: usize) -> impl Iterator<Item = String> {
        (0..activities).map(move |number| id(actor, number))
    }
}

fn id(actor: &str, number: usize) -> String {
    format!("http://our.test/activities/{actor}/history/{number}")
}

async fn accept(listener: TcpListener, activities: usize, pages: Arc<AtomicUsize>) {
    let addr = listener.local_addr().ok();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let (Ok((stream, _)), Some(addr)) = (accepted, addr) {
                let pages = Arc::clone(&pages);
                // A connection's error is its end.
                connections.spawn(async move { serve(stream, addr, activities, &pages).await.is_ok() });
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, addr: SocketAddr, activities: usize, pages: &AtomicUsize) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = Reader::new(reader);
    while let Some(head) = reader.head().await? {
        reader.request_body(&head).await?;
        let target = head.start.split(' ').nth(1).unwrap_or_default();
        let body = document(addr, target, activities, pages).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        writer.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await?;
    }
    Ok(())
}

/// The collection, or one of its pages: page 0 is the newest.
fn document(addr: SocketAddr, target: &str, activities: usize, pages: &AtomicUsize) -> Value {
    let (path, page) = target.split_once("?page=").map_or((target, None), |(path, page)| (path, page.parse().ok()));
    let actor = path.split('/').nth(2).unwrap_or_default();
    let url = |page: usize| format!("http://{addr}{path}?page={page}");
    let last = activities.div_ceil(PAGE).saturating_sub(1);
    let Some(page): Option<usize> = page else {
        return json!({ "type": "OrderedCollection", "first": url(0), "last": url(last) });
    };
    pages.fetch_add(1, Ordering::Relaxed);
    let newest_first = (0..activities).rev().skip(page * PAGE).take(PAGE);
    let items: Vec<Value> = newest_first.map(|number| activity(&id(actor, number), actor)).collect();
    let mut document = json!({ "id": url(page), "type": "OrderedCollectionPage", "orderedItems": items });
    if page < last {
        document["next"] = url(page + 1).into();
    }
    if page > 0 {
        document["prev"] = url(page - 1).into();
    }
    document
}
