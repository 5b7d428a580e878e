//! One activity of a v1 batch as the request that goes to the instance, and the lane that it is of.
//!
//! A v1 batch has every header that its front door got, those of the connection included: they are left out, for here
//! they would say something wrong about where the request ends. Everything else is replayed as it stands.

use fedstream_lane::{InstanceName, Lane, MsgId, Seq};
use fedstream_service::signature::{self, Signature};
use fedstream_wire::v1::Item;
use fedstream_wire::v2::BatchItem;
use http::HeaderMap;
use http::uri::Authority;
use serde_json::Value;

use crate::parcel::{NEVER_REPLAYED, Parcel, shown};
use crate::rules::{self, Rules};

/// The scheme of an activity that does not say it: federation is https.
const SCHEME: &str = "https";

/// An activity that is ready to go.
#[derive(Debug)]
pub struct Activity {
    /// Its id as the batch has it, for the answer.
    pub id: String,
    /// Its lane.
    pub lane: Lane,
    /// Where its instance is reached.
    pub address: Authority,
    /// The request.
    pub parcel: Parcel,
}

/// Why nothing of a batch is relayed. Item 1 is the first activity.
///
/// Not an entry of its own for the one activity, although the format has room for it: the existing sender drops whatever has
/// a final status, so that would be a loss that nobody hears of; and at any other one it gives its batch back all the same,
/// older versions even what stands before that entry, which would be delivered again at each of their restarts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its `host` is no name of an instance.
    #[error(
        "item {item}: host is missing or malformed: {found:?} is no name of an instance (activity {activity_id:?})"
    )]
    Host {
        /// Which item.
        item: usize,
        /// Its id: whoever has it in a queue finds it by that.
        activity_id: String,
        /// What is there.
        found: String,
    },
    /// As for any batch.
    #[error("{error} (activity {activity_id:?})")]
    Rules {
        /// Its id.
        activity_id: String,
        /// What is not allowed.
        #[source]
        error: rules::Error,
    },
}

/// The whole batch as requests, or why nothing of it.
///
/// # Errors
/// The first thing that is not allowed.
pub fn check(rules: &Rules, items: Vec<Item>) -> Result<Vec<Activity>, Error> {
    items.into_iter().zip(1..).map(|(item, number)| check_one(rules, number, item)).collect()
}

fn check_one(rules: &Rules, number: usize, item: Item) -> Result<Activity, Error> {
    let destination: InstanceName = item.host.parse().map_err(|_| {
        let activity_id = shown(&item.activity_id);
        Error::Host { item: number, activity_id, found: shown(&item.host) }
    })?;
    let target = item.target();
    let mut http = item.headers;
    let of_connection = of_connection(&http);
    http.retain(|(name, _)| !of_connection.contains(&name.to_ascii_lowercase()));
    if !http.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        http.insert(0, ("host".to_owned(), item.host.into()));
    }
    let as_item = BatchItem {
        seq: Seq(number as u64), // its place: there is no other number
        msg_id: MsgId::new(""),
        received_at_us: fedstream_wire::micros(item.time),
        scheme: SCHEME.to_owned(),
        target,
        http,
        body: item.body,
        activity_id: item.activity_id.clone(),
        traceparent: None,
        tracestate: None,
    };
    let (address, parcel) = rules
        .check_one(&destination, number, as_item)
        .map_err(|error| Error::Rules { activity_id: shown(&item.activity_id), error })?;
    // Of one that names nobody: an instance sends nothing to itself, so this lane is nobody else's.
    let source = source(&parcel.headers, &parcel.body).unwrap_or_else(|| destination.clone());
    Ok(Activity { id: item.activity_id, lane: Lane { destination, source }, address, parcel })
}

/// Names of the headers that were of the connection, in lower case (RFC 9110, section 7.6.1).
fn of_connection(http: &[(String, bytes::Bytes)]) -> Vec<String> {
    let mut names: Vec<String> = NEVER_REPLAYED.map(str::to_owned).into();
    names.push("proxy-connection".to_owned());
    for (_, value) in http.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection")) {
        let named = String::from_utf8_lossy(value).to_ascii_lowercase();
        names.extend(named.split(',').map(|name| name.trim().to_owned()).filter(|name| name != "host"));
    }
    names
}

/// The host of the signature's key, as the front door of v2 reads it; else of the actor.
fn source(headers: &HeaderMap, body: &[u8]) -> Option<InstanceName> {
    let host = |url: &str| signature::authority(url)?.parse().ok();
    if let Some(key) = Signature::of(headers).and_then(|signature| signature.key_id) {
        return host(&key);
    }
    let activity: Value = serde_json::from_slice(body).ok()?;
    let actor = activity.get("actor")?;
    host(actor.as_str().or_else(|| actor.get("id")?.as_str())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SERVICE};
    use bytes::Bytes;
    use fedstream_service::config::{Environment, load_from};

    fn rules() -> Rules {
        let pairs = [("FED_OPEN_RECEIVER", "yes"), ("FED_DESTINATIONS", "b.example,c.example:8443")];
        let config: Config = load_from(&SERVICE, &Environment::from_pairs(&pairs)).expect("configuration");
        Rules::new(&config).expect("rules")
    }

    fn item(headers: &[(&str, &'static str)]) -> Item {
        Item {
            time: fedstream_wire::from_micros(1_719_784_076_123_456).expect("time"),
            activity_id: "https://a.example/1".into(),
            host: "b.example".into(),
            path: "/inbox".into(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Bytes::from_static(value.as_bytes())))
                .collect(),
            body: Bytes::from_static(br#"{"actor":"https://actor.example/u/a"}"#),
        }
    }

    fn one(item: Item) -> Result<Activity, Error> {
        check(&rules(), vec![item]).map(|mut all| all.remove(0))
    }

    #[test]
    fn headers_of_the_connection_are_left_out_and_the_rest_stays() {
        let activity = one(item(&[
            ("Host", "b.example"),
            ("CONNECTION", "keep-alive, X-Hop, host"),
            ("Keep-Alive", "5"),
            ("X-Hop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "9999"),
            ("X-Twice", "1"),
            ("x-twice", "2"),
            ("X-Forwarded-For", "192.0.2.1"),
        ]))
        .expect("fit");
        let pairs: Vec<_> = activity
            .parcel
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        let expected = [
            ("host", "b.example"),
            ("x-twice", "1"),
            ("x-twice", "2"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b.example"),
            ("content-length", "37"),
        ];
        assert_eq!(pairs, expected);
        assert_eq!(activity.parcel.target.as_str(), "/inbox");
        assert_eq!(
            one(item(&[])).expect("fit").parcel.headers["host"],
            "b.example",
            "from the field where it is not there"
        );
    }

    #[test]
    fn the_lane_is_of_the_signatures_key_else_of_the_actor_else_of_nobody() {
        let lane = |item: Item| one(item).expect("fit").lane.to_string();
        let key = ("Signature", "keyId=\"https://Key.example/u/a#main-key\",signature=\"x\"");
        assert_eq!(lane(item(&[key])), "b.example/key.example");
        let key = ("signature-input", "sig1=(\"@method\");keyid=\"https://rfc.example/k\"");
        assert_eq!(lane(item(&[key])), "b.example/rfc.example");
        assert_eq!(lane(item(&[])), "b.example/actor.example");
        let mut odd = item(&[]);
        odd.body = Bytes::from_static(br#"{"actor":{"id":"https://object.example/u"}}"#);
        assert_eq!(lane(odd.clone()), "b.example/object.example");
        for body in ["", "[]", "{}", r#"{"actor":7}"#, r#"{"actor":"bob"}"#] {
            odd.body = Bytes::from_static(body.as_bytes());
            assert_eq!(lane(odd.clone()), "b.example/b.example", "{body}");
        }
        let mut other = item(&[]);
        other.host = "C.Example:8443".into();
        assert_eq!(lane(other), "c.example:8443/actor.example");
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let refused = |change: &dyn Fn(&mut Item)| {
            let mut item = item(&[]);
            change(&mut item);
            one(item).expect_err("refused").to_string()
        };
        assert!(refused(&|item| item.host = "a b".into()).starts_with("item 1: host is missing or malformed"));
        assert!(
            refused(&|item| item.host = "internal:8080".into())
                .ends_with("FED_DESTINATIONS has no entry internal:8080 (activity \"https://a.example/1\")")
        );
        assert!(
            refused(&|item| item.headers = vec![("HOST".into(), "c.example".into())]).contains("its Host (c.example)")
        );
        assert!(refused(&|item| item.path = "/api".into()).contains("FED_INBOX_PATHS"));
        assert!(refused(&|item| item.path = "/inbox?x".into()).contains("/inbox%3Fx"), "a path has no query");
        assert!(refused(&|item| item.headers = vec![("x".into(), "a\r\nb: c".into())]).contains("the header \"x\""));
    }
}
