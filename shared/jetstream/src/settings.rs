//! How to reach the broker: plain values, read from the environment by the services, never by this crate.
//!
//! Nothing here is ever printed with a credential in it: not by `Debug`, not in an error, not in a log line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Who makes the streams (`FED_STREAMS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamsMode {
    /// The services make what is missing: one machine.
    #[default]
    Create,
    /// They are declared elsewhere (Kubernetes with NACK); a missing one is an error.
    Bind,
}

/// A text that is neither `create` nor `bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither create nor bind")]
pub struct InvalidMode;

impl FromStr for StreamsMode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        match text {
            "create" => Ok(Self::Create),
            "bind" => Ok(Self::Bind),
            _ => Err(InvalidMode),
        }
    }
}

/// Everything that [`crate::Broker::connect`] needs to know.
#[derive(Clone)]
pub struct NatsSettings {
    /// `NATS_URL`: one address, or several of one cluster, separated by commas.
    pub url: String,
    /// `NATS_USER`.
    pub user: Option<String>,
    /// `NATS_PASSWORD`.
    pub password: Option<String>,
    /// `NATS_CREDS_FILE`: a file with a JWT and an nkey seed.
    pub creds_file: Option<PathBuf>,
    /// `NATS_CA_FILE`: trusted in place of the system's authorities; asks for TLS.
    pub ca_file: Option<PathBuf>,
    /// The prefix of reply subjects, where the user's permissions want one of its own.
    pub inbox_prefix: Option<String>,
    /// `NATS_CONNECT_TIMEOUT`: how long to wait for a broker at start.
    pub connect_timeout: Duration,
    /// `FED_STREAMS`.
    pub streams: StreamsMode,
    /// `NATS_MONITOR_URL`: the server's monitoring address, to see whether writes are synced.
    pub monitor_url: Option<String>,
    /// `FED_STREAM_REPLICAS`: for streams that are made here.
    pub replicas: usize,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            user: None,
            password: None,
            creds_file: None,
            ca_file: None,
            inbox_prefix: None,
            connect_timeout: Duration::from_secs(30),
            streams: StreamsMode::Create,
            monitor_url: None,
            replicas: 1,
        }
    }
}

impl NatsSettings {
    /// `NATS_URL` as it may be shown: without user names, passwords and tokens.
    #[must_use]
    pub fn shown_url(&self) -> String {
        self.url.split(',').map(|url| without_credentials(url.trim())).collect::<Vec<_>>().join(",")
    }

    /// The user and password in `NATS_URL`, or the token, which is a user without a password. The servers of one cluster
    /// know the same users, so the first address that has one speaks for all.
    pub(crate) fn url_credentials(&self) -> Option<(String, Option<String>)> {
        let given = self.url.split(',').find_map(|url| split_credentials(url.trim()).1)?;
        Some(match given.split_once(':') {
            Some((user, password)) => (decoded(user), Some(decoded(password))),
            None => (decoded(given), None),
        })
    }
}

/// Drops what stands between the scheme and the last `@` of the authority.
fn without_credentials(url: &str) -> String {
    split_credentials(url).0
}

fn split_credentials(url: &str) -> (String, Option<&str>) {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (credentials, host) = rest.rsplit_once('@').map_or((None, rest), |(given, host)| (Some(given), host));
    let shown = if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") };
    (shown, credentials)
}

/// Undoes percent-encoding (RFC 3986, section 2.1); what is none stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSettings")
            .field("url", &self.shown_url())
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("creds_file", &self.creds_file)
            .field("ca_file", &self.ca_file)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("connect_timeout", &self.connect_timeout)
            .field("streams", &self.streams)
            .field("monitor_url", &self.monitor_url.as_deref().map(without_credentials))
            .field("replicas", &self.replicas)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_the_address_are_found_and_decoded() {
        let found = |url: &str| NatsSettings { url: url.into(), ..NatsSettings::default() }.url_credentials();
        let pair = |user: &str, password: &str| Some((user.to_owned(), Some(password.to_owned())));
        assert_eq!(found("nats://a:4222,nats://b:4222"), None);
        assert_eq!(found("nats://a:4222, tls://me:s3%40cr:et@b:4222"), pair("me", "s3@cr:et"));
        assert_eq!(found("me:100%@b"), pair("me", "100%"));
        assert_eq!(found("nats://t0ken@b"), Some(("t0ken".to_owned(), None)));
    }

    #[test]
    fn no_credential_is_ever_shown() {
        for (url, shown) in [
            ("nats://me:s3cret@broker:4222", "nats://broker:4222"),
            ("nats://s3cret@a:4222, tls://me:s3@cret@b:4222", "nats://a:4222,tls://b:4222"),
            ("me:s3cret@broker", "broker"),
            ("broker:4222", "broker:4222"),
        ] {
            let settings = NatsSettings { url: url.into(), password: Some("s3cret".into()), ..NatsSettings::default() };
            assert_eq!(settings.shown_url(), shown);
            assert!(!format!("{settings:?}").contains("s3"), "{settings:?}");
        }
    }
}
