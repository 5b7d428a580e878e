//! A remote instance as others write one: receives activities with the `activitypub_federation` crate, which fetches the
//! sender's actor, takes its public key and verifies digest and draft-cavage signature, as Lemmy does.
//!
//! Prints `http://127.0.0.1:<port>` and serves `POST /inbox` and `GET /state`: what became of what it took, as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use activitypub_federation::axum::inbox::{ActivityData, receive_activity};
use activitypub_federation::config::{Data, FederationConfig, FederationMiddleware};
use activitypub_federation::protocol::public_key::PublicKey;
use activitypub_federation::protocol::verification::verify_domains_match;
use activitypub_federation::traits::{ActivityHandler, Actor, Object};
use async_trait::async_trait;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

type Shared = Arc<Mutex<State>>;

/// What an application of its kind keeps.
#[derive(Clone, Default, Serialize)]
struct State {
    /// The ids of what it took, in order.
    received: Vec<String>,
    /// The text of each note that is there.
    notes: BTreeMap<String, String>,
    /// Who follows whom.
    followers: BTreeSet<(String, String)>,
    /// What did not fit into that, in words: an order that was not kept.
    odd: Vec<String>,
}

impl State {
    fn handle(&mut self, kind: &str, actor: String, object: &Value) {
        let id = object.as_str().or_else(|| object["id"].as_str()).unwrap_or_default().to_owned();
        let content = object["content"].as_str().unwrap_or_default().to_owned();
        let fits = match kind {
            "Create" => self.notes.insert(id.clone(), content).is_none(),
            "Update" => self.notes.insert(id.clone(), content).is_some(),
            "Delete" => self.notes.remove(&id).is_some(),
            "Follow" => self.followers.insert((actor, id.clone())),
            "Undo" => {
                let followed = object["object"].as_str().unwrap_or_default().to_owned();
                self.followers.remove(&(actor, followed))
            }
            _ => self.notes.contains_key(&id), // a Like, an Announce: of what is there
        };
        if !fits {
            self.odd.push(format!("{kind} of {id}"));
        }
    }
}

/// Whatever goes wrong, in words: the answer's body.
#[derive(Debug)]
struct Error(String);

impl<E: Into<anyhow::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self(format!("{:#}", error.into()))
    }
}

/// An actor document, as much of it as is needed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Person {
    id: Url,
    inbox: Url,
    public_key: PublicKey,
}

#[async_trait]
impl Object for Person {
    type DataType = Shared;
    type Kind = Person;
    type Error = Error;

    async fn read_from_id(_: Url, _: &Data<Shared>) -> Result<Option<Self>, Error> {
        Ok(None) // fetched each time: a key that was rotated counts at once
    }

    async fn into_json(self, _: &Data<Shared>) -> Result<Person, Error> {
        Ok(self)
    }

    async fn verify(json: &Person, expected_domain: &Url, _: &Data<Shared>) -> Result<(), Error> {
        Ok(verify_domains_match(&json.id, expected_domain)?)
    }

    async fn from_json(json: Person, _: &Data<Shared>) -> Result<Self, Error> {
        Ok(json)
    }
}

impl Actor for Person {
    fn id(&self) -> Url {
        self.id.clone()
    }

    fn public_key_pem(&self) -> &str {
        &self.public_key.public_key_pem
    }

    fn private_key_pem(&self) -> Option<String> {
        None
    }

    fn inbox(&self) -> Url {
        self.inbox.clone()
    }
}

/// Any activity.
#[derive(Debug, Deserialize)]
struct Anything {
    id: Url,
    actor: Url,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    object: Value,
}

#[async_trait]
impl ActivityHandler for Anything {
    type DataType = Shared;
    type Error = Error;

    fn id(&self) -> &Url {
        &self.id
    }

    fn actor(&self) -> &Url {
        &self.actor
    }

    async fn verify(&self, _: &Data<Shared>) -> Result<(), Error> {
        Ok(verify_domains_match(&self.id, &self.actor)?)
    }

    async fn receive(self, data: &Data<Shared>) -> Result<(), Error> {
        let mut state = data.lock().unwrap_or_else(PoisonError::into_inner);
        state.received.push(self.id.into());
        state.handle(&self.kind, self.actor.into(), &self.object);
        Ok(())
    }
}

async fn inbox(data: Data<Shared>, activity: ActivityData) -> (StatusCode, String) {
    match receive_activity::<Anything, Person, Shared>(activity, &data).await {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(Error(cause)) => (StatusCode::UNAUTHORIZED, cause),
    }
}

async fn state(data: Data<Shared>) -> Json<State> {
    Json(data.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let config = FederationConfig::builder()
        .domain(address.to_string())
        .app_data(Shared::default())
        .debug(true) // the senders are on this machine, over plain HTTP
        .build()
        .await?;
    let router = Router::new()
        .route("/inbox", post(inbox))
        .route("/state", get(state))
        .layer(FederationMiddleware::new(config));
    println!("http://{address}");
    std::io::stdout().flush()?;
    axum::serve(listener, router).await?;
    Ok(())
}
