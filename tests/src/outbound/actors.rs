//! The application's users as remotes see them: an actor document each, by which a signature is verified.

use std::sync::Arc;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::door::Door;
use crate::http1::Reader;

/// The public key of a user, as PEM, by the user's name.
type Keys = dyn Fn(&str) -> String + Send + Sync;

/// Shows any user that is asked for. Gone on drop.
pub struct Actors {
    door: Door,
}

impl Actors {
    /// On a free port, with these public keys.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn start(keys: impl Fn(&str) -> String + Send + Sync + 'static) -> std::io::Result<Self> {
        let mut door = Door::closed();
        let (base, keys): (_, Arc<Keys>) = (base(&door), Arc::new(keys));
        door.open(|listener| accept(listener, base, keys)).await?;
        Ok(Self { door })
    }

    /// The URL below which they are, each as `/users/<name>` with the key `#main-key`. By a name: not every remote takes
    /// addresses.
    #[must_use]
    pub fn base(&self) -> String {
        base(&self.door)
    }
}

fn base(door: &Door) -> String {
    format!("http://localhost:{}", door.addr().port())
}

async fn accept(listener: TcpListener, base: String, keys: Arc<Keys>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let (base, keys) = (base.clone(), Arc::clone(&keys));
                // A connection's error is its end.
                connections.spawn(async move { serve(stream, &base, &*keys).await.is_ok() });
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, base: &str, keys: &Keys) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = Reader::new(reader);
    while let Some(head) = reader.head().await? {
        reader.request_body(&head).await?;
        let target = head.start.split(' ').nth(1).unwrap_or_default();
        let name = target.rsplit('/').next().unwrap_or_default();
        let id = format!("{base}/users/{name}");
        let body = json!({
            "@context": ["https://www.w3.org/ns/activitystreams", "https://w3id.org/security/v1"],
            "id": id,
            "type": "Person",
            "inbox": format!("{id}/inbox"),
            "publicKey": { "id": format!("{id}#main-key"), "owner": id, "publicKeyPem": keys(name) },
        });
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/activity+json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await?;
    }
    Ok(())
}
