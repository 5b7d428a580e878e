//! Which instance sends: the host of the signature's key, else of the `actor`.

use fedstream_lane::InstanceName;
use fedstream_service::signature::{self, Signature};

use crate::activity::{Activity, Reference};
use crate::refusal::Refusal;

/// The host of the signature's key. A signature whose key is no URL is refused rather than passed over for the actor:
/// the lane must be the same for all that one instance sends.
pub fn of_signature(signature: &Signature) -> Result<InstanceName, Refusal> {
    let key = signature.key_id.as_deref().ok_or(Refusal::NoSource("the signature has no keyId that can be read"))?;
    host(key).ok_or(Refusal::NoSource("the signature's keyId is not the URL of a key"))
}

/// The host of the actor, for a request without a signature.
pub fn of_actor(activity: &Activity) -> Result<InstanceName, Refusal> {
    match &activity.actor {
        Reference::Url(url) => host(url).ok_or(Refusal::NoSource("there is no signature, and the actor is not a URL")),
        Reference::Absent => Err(Refusal::NoSource("there is neither a signature nor an actor")),
        Reference::Odd => {
            Err(Refusal::NoSource("there is no signature, and the actor is neither a URL nor an object with an id"))
        }
    }
}

/// The host of an http(s) URL. One with a user in it (`https://lemmy.world@evil.example`) is nobody's key, and parsers
/// disagree about it.
fn host(url: &str) -> Option<InstanceName> {
    signature::authority(url)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(url: &str) -> Result<String, Refusal> {
        let signature = Signature { key_id: Some(url.to_owned()), ..Signature::default() };
        of_signature(&signature).map(|name| name.to_string())
    }

    #[test]
    fn the_source_is_the_host_of_the_key() {
        assert_eq!(key("https://Lemmy.World/u/a#main-key").unwrap(), "lemmy.world");
        assert_eq!(key("http://alpha.localtest:18082/users/alice#main-key").unwrap(), "alpha.localtest:18082");
        assert_eq!(key("https://a.example?key=1").unwrap(), "a.example");
    }

    #[test]
    fn a_key_that_is_no_url_is_refused_and_not_guessed() {
        for odd in
            ["", "main-key", "acct:a@lemmy.world", "https://", "https://lemmy.world@evil.example/k", "https://*/k"]
        {
            assert!(key(odd).is_err(), "{odd}");
        }
        assert!(of_signature(&Signature::default()).is_err());
    }

    #[test]
    fn without_a_signature_it_is_the_host_of_the_actor() {
        let of = |json: &str| of_actor(&Activity::parse(json.as_bytes()).unwrap());
        assert_eq!(of(r#"{"actor":"https://a.example/u"}"#).unwrap().as_str(), "a.example");
        assert_eq!(of(r#"{"actor":{"type":"Person","id":"https://a.example/u"}}"#).unwrap().as_str(), "a.example");
        for odd in
            [r#"{}"#, r#"{"actor":5}"#, r#"{"actor":"bob"}"#, r#"{"actor":["https://a.example/u"]}"#, r#"{"actor":{}}"#]
        {
            assert!(of(odd).is_err(), "{odd}");
        }
    }
}
