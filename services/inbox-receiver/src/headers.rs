//! Which of a request's headers are stored (DESIGN section 3): all that the destination must see to verify the signature,
//! none that was meant for the connection it came over, none that a proxy in front of us wrote.

use fedstream_service::signature::{self, Signature};
use http::request::Parts;
use http::{HeaderMap, Uri};

use crate::refusal::Refusal;

/// Headers about one connection (RFC 9110, section 7.6.1), and those that the replay makes anew.
const HOP_BY_HOP: [&str; 8] =
    ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "content-length"];

/// What the signature needs although it does not cover it.
const NEEDED: [&str; 3] = ["host", "signature", "signature-input"];

/// What `host` a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// None, or one that is no text.
    Missing,
    /// One, as it was written.
    One(String),
    /// Several Host headers, or a target that names another host than the header.
    Several,
}

/// HTTP/2 and absolute-form targets name the host in the target; everything else in `Host`.
pub fn host(request: &Parts) -> Host {
    let mut named: Vec<&str> = Vec::new();
    for value in request.headers.get_all("host") {
        match value.to_str() {
            Ok(value) => named.push(value.trim()),
            Err(_) => return Host::Missing,
        }
    }
    if named.len() > 1 {
        return Host::Several;
    }
    match (request.uri.authority(), named.first()) {
        (Some(target), Some(header)) if !target.as_str().eq_ignore_ascii_case(header) => Host::Several,
        // The header's own spelling, where there is one: the signature covers it.
        (_, Some(header)) => Host::One((*header).to_owned()),
        (Some(target), None) => Host::One(target.as_str().to_owned()),
        (None, None) => Host::Missing,
    }
}

/// Path and query exactly as received.
pub fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// Bytes of the request line's target and of the headers as they were written on HTTP/1.
pub fn size(request: &Parts) -> usize {
    let headers: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    headers + target(&request.uri).len()
}

/// The pairs to store, `host` first, values of one name in their order.
pub fn to_store(
    headers: &HeaderMap,
    host: &str,
    signature: Option<&Signature>,
) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
    let connection = named_by_connection(headers);
    let covers = |name: &str| signature.is_some_and(|signature| signature.covers(name));
    if let Some(name) = connection.iter().find(|name| covers(name) || NEEDED.contains(&name.as_str())) {
        return Err(Refusal::ConnectionNamesSigned(name.clone()));
    }
    // The signature itself may travel in Authorization.
    let signs_in_authorization = signature::authorization(headers).is_some();
    let mut stored = vec![("host".to_owned(), host.as_bytes().to_vec())];
    for (name, value) in headers {
        let name = name.as_str();
        let kept = name != "host"
            && !HOP_BY_HOP.contains(&name)
            && !name.starts_with("proxy-")
            && !connection.iter().any(|named| named == name)
            && (!is_private(name) || covers(name) || (name == "authorization" && signs_in_authorization));
        if kept {
            stored.push((name.to_owned(), value.as_bytes().to_vec()));
        }
    }
    Ok(stored)
}

/// Written by a proxy in front of us, or a credential for us: neither is the destination's business.
fn is_private(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "cookie" | "authorization")
}

/// The headers that Connection names, in lower case. `close` and `keep-alive` are options, not headers.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all("connection")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "close" && name != "keep-alive")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Request};

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn parts(target: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::post(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn names(stored: &[(String, Vec<u8>)]) -> Vec<&str> {
        stored.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn signed(covered: &[&str]) -> Signature {
        Signature { covered: covered.iter().map(|name| (*name).to_owned()).collect(), ..Signature::default() }
    }

    #[test]
    fn what_belongs_to_the_connection_or_to_a_proxy_is_not_stored() {
        let headers = headers(&[
            ("content-type", "application/activity+json"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "x"),
            ("content-length", "5"),
            ("expect", "100-continue"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("cookie", "a=b"),
            ("authorization", "Bearer x"),
            ("nats-rollup", "all"),
        ]);
        let stored = to_store(&headers, "a.example", None).unwrap();
        assert_eq!(names(&stored), ["host", "content-type", "nats-rollup"]);
    }

    #[test]
    fn what_the_signature_covers_is_stored() {
        let headers = headers(&[("cookie", "a=b"), ("x-forwarded-for", "1.2.3.4"), ("authorization", "Bearer x")]);
        let stored = to_store(&headers, "a", Some(&signed(&["cookie", "x-forwarded-for", "authorization"]))).unwrap();
        assert_eq!(names(&stored), ["host", "cookie", "x-forwarded-for", "authorization"]);
    }

    #[test]
    fn a_signature_in_authorization_is_stored() {
        let headers = headers(&[("authorization", "Signature keyId=\"https://a/k\"")]);
        assert_eq!(names(&to_store(&headers, "a", Some(&signed(&[]))).unwrap()), ["host", "authorization"]);
    }

    #[test]
    fn connection_may_not_name_what_the_signature_needs() {
        for (value, name) in [("close, Digest", "digest"), ("host", "host"), ("signature", "signature")] {
            let refused = to_store(&headers(&[("connection", value)]), "a", Some(&signed(&["digest"])));
            assert_eq!(refused, Err(Refusal::ConnectionNamesSigned(name.to_owned())));
        }
    }

    #[test]
    fn repeated_headers_and_high_bytes_are_kept() {
        let mut headers = headers(&[("x-a", "2")]);
        headers.append("x-a", HeaderValue::from_bytes(b"\xff\x80 1").unwrap());
        let stored = to_store(&headers, "A.example", None).unwrap();
        assert_eq!(stored[0], ("host".into(), b"A.example".to_vec()));
        assert_eq!(stored[1..], [("x-a".into(), b"2".to_vec()), ("x-a".into(), b"\xff\x80 1".to_vec())]);
    }

    #[test]
    fn the_host_comes_from_the_header_or_from_the_target() {
        assert_eq!(host(&parts("/inbox", &["A.example"])), Host::One("A.example".into()));
        assert_eq!(host(&parts("http://a.example/inbox", &[])), Host::One("a.example".into()));
        assert_eq!(host(&parts("http://a.example/inbox", &["A.example"])), Host::One("A.example".into()));
        assert_eq!(host(&parts("http://b.example/inbox", &["a.example"])), Host::Several);
        assert_eq!(host(&parts("/inbox", &["a.example", "a.example"])), Host::Several);
        assert_eq!(host(&parts("/inbox", &[])), Host::Missing);
    }

    #[test]
    fn the_target_is_as_received() {
        for raw in ["/a/../inbox", "/users/%40bob/inbox?x='1'&y=%2F", "/inbox?"] {
            assert_eq!(target(&parts(raw, &[]).uri), raw);
            assert_eq!(target(&parts(&format!("http://a.example{raw}"), &[]).uri), raw);
        }
    }
}
