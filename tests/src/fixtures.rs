//! The genuine requests in `tests/fixtures/`, taken from the wires of Lemmy 0.19.20 and Fedify 2.3.6.

use anyhow::Context;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::directory::Directory;
use crate::message::Message;

const LEMMY: &str = include_str!("../fixtures/lemmy-requests.ndjson");
const FEDIFY: &str = include_str!("../fixtures/signed-requests.ndjson");

/// One captured request.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// The request as it was sent.
    pub message: Message,
    /// Scheme of the URL it was sent to.
    pub scheme: String,
    /// The signing key's id.
    pub key_id: String,
    /// The signing key's public half.
    pub public_pem: String,
    /// When: its signature is valid for an hour around.
    pub captured_at: OffsetDateTime,
}

#[derive(Deserialize)]
struct Line {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body_b64: String,
    // Lemmy's lines have none; its instances were reached by http.
    scheme: Option<String>,
    key_id: String,
    sender_public_key_pem: String,
    #[serde(with = "time::serde::rfc3339")]
    captured_at: OffsetDateTime,
}

impl Fixture {
    /// `Host` of the request.
    #[must_use]
    pub fn destination(&self) -> String {
        self.message.header("host").unwrap_or_default()
    }

    /// Host of the key id.
    #[must_use]
    pub fn source(&self) -> String {
        self.key_id.split('/').nth(2).unwrap_or_default().to_owned()
    }
}

/// The 75 requests of Lemmy.
///
/// # Errors
/// A line that is none.
pub fn lemmy() -> anyhow::Result<Vec<Fixture>> {
    parse(LEMMY)
}

/// The 20 requests of Fedify, half of them signed by RFC 9421.
///
/// # Errors
/// As [`lemmy`].
pub fn fedify() -> anyhow::Result<Vec<Fixture>> {
    parse(FEDIFY)
}

/// Enters the keys of all of them.
///
/// # Errors
/// A fixture's key that is none.
pub fn enter_keys(fixtures: &[Fixture], directory: &Directory) -> anyhow::Result<()> {
    for fixture in fixtures {
        directory.enter(&fixture.key_id, &fixture.public_pem)?;
    }
    Ok(())
}

fn parse(lines: &str) -> anyhow::Result<Vec<Fixture>> {
    lines.lines().enumerate().map(|(n, line)| fixture(line).with_context(|| format!("line {}", n + 1))).collect()
}

fn fixture(line: &str) -> anyhow::Result<Fixture> {
    let line: Line = serde_json::from_str(line)?;
    Ok(Fixture {
        message: Message {
            method: line.method,
            target: line.path,
            headers: line.headers,
            body: Bytes::from(STANDARD.decode(line.body_b64)?),
        },
        scheme: line.scheme.unwrap_or_else(|| "http".to_owned()),
        key_id: line.key_id,
        public_pem: line.sender_public_key_pem,
        captured_at: line.captured_at,
    })
}
