//! A remote instance as others write one: receives activities with the `activitypub_federation` crate, which fetches the
//! sender's actor, takes its public key and verifies digest and draft-cavage signature, as Lemmy does.
//!
//! Prints `http://127.0.0.1:<port>` and serves `POST /inbox` and `GET /received`: the ids it took, in order, as JSON.

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

type Received = Arc<Mutex<Vec<String>>>;

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
    type DataType = Received;
    type Kind = Person;
    type Error = Error;

    async fn read_from_id(_: Url, _: &Data<Received>) -> Result<Option<Self>, Error> {
        Ok(None) // fetched each time: a key that was rotated counts at once
    }

    async fn into_json(self, _: &Data<Received>) -> Result<Person, Error> {
        Ok(self)
    }

    async fn verify(json: &Person, expected_domain: &Url, _: &Data<Received>) -> Result<(), Error> {
        Ok(verify_domains_match(&json.id, expected_domain)?)
    }

    async fn from_json(json: Person, _: &Data<Received>) -> Result<Self, Error> {
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
    #[serde(flatten)]
    _rest: Value,
}

#[async_trait]
impl ActivityHandler for Anything {
    type DataType = Received;
    type Error = Error;

    fn id(&self) -> &Url {
        &self.id
    }

    fn actor(&self) -> &Url {
        &self.actor
    }

    async fn verify(&self, _: &Data<Received>) -> Result<(), Error> {
        Ok(verify_domains_match(&self.id, &self.actor)?)
    }

    async fn receive(self, data: &Data<Received>) -> Result<(), Error> {
        data.lock().unwrap_or_else(PoisonError::into_inner).push(self.id.into());
        Ok(())
    }
}

async fn inbox(data: Data<Received>, activity: ActivityData) -> (StatusCode, String) {
    match receive_activity::<Anything, Person, Received>(activity, &data).await {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(Error(cause)) => (StatusCode::UNAUTHORIZED, cause),
    }
}

async fn received(data: Data<Received>) -> Json<Vec<String>> {
    Json(data.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let config = FederationConfig::builder()
        .domain(address.to_string())
        .app_data(Received::default())
        .debug(true) // the senders are on this machine, over plain HTTP
        .build()
        .await?;
    let router = Router::new()
        .route("/inbox", post(inbox))
        .route("/received", get(received))
        .layer(FederationMiddleware::new(config));
    println!("http://{address}");
    std::io::stdout().flush()?;
    axum::serve(listener, router).await?;
    Ok(())
}
