//! The delivery's traceparent for the instance, where FED_PASS_TRACEPARENT says so: an instance that traces its own work
//! then shows it below the delivery.
//!
//! It is no part of the signed request. A sender's own traceparent gives way to it, unless the signature covers that, or
//! can't be read: then the request stays as it is, byte for byte.

use fedstream_service::context::TraceHeaders;
use fedstream_service::signature::Signature;
use http::header::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Puts it in.
pub fn put(headers: &mut HeaderMap, trace: TraceHeaders) {
    let Ok(traceparent) = HeaderValue::try_from(trace.traceparent) else { return };
    if is_signed(headers) {
        return;
    }
    headers.insert(TRACEPARENT, traceparent);
    headers.remove(TRACESTATE);
    if let Some(Ok(state)) = trace.tracestate.map(HeaderValue::try_from) {
        headers.insert(TRACESTATE, state);
    }
}

fn is_signed(headers: &HeaderMap) -> bool {
    let covered = [TRACEPARENT, TRACESTATE].map(|name| name.as_str().to_owned());
    let has_any = headers.contains_key(TRACEPARENT) || headers.contains_key(TRACESTATE);
    Signature::of(headers).is_some_and(|signature| {
        let unread = signature.key_id.is_none();
        covered.iter().any(|name| signature.covers(name)) || (unread && has_any)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn put_into(lines: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers: HeaderMap = lines.iter().map(pair).collect();
        put(&mut headers, TraceHeaders { traceparent: OURS.into(), tracestate: None });
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn traceparents(lines: &[(&'static str, &'static str)]) -> Vec<String> {
        put_into(lines).into_iter().filter(|(name, _)| name == "traceparent").map(|(_, value)| value).collect()
    }

    #[test]
    fn a_request_without_one_gets_ours_and_one_that_nobody_signed_gives_way() {
        let signature = ("signature", r#"keyId="https://a.example/k",headers="(request-target) host date digest""#);
        assert_eq!(traceparents(&[signature]), [OURS]);
        assert_eq!(traceparents(&[]), [OURS]);
        let theirs = put_into(&[signature, ("traceparent", "00-aa-bb-01"), ("tracestate", "x=y")]);
        assert!(
            !theirs.iter().any(|(name, _)| name == "tracestate"),
            "their state belongs to their parent: {theirs:?}"
        );
        assert_eq!(traceparents(&[signature, ("traceparent", "00-aa-bb-01")]), [OURS]);
    }

    #[test]
    fn a_signed_one_stays_and_so_does_one_whose_signature_nobody_can_read() {
        for signature in [
            ("signature", r#"keyId="https://a.example/k",headers="(request-target) host TraceParent""#),
            ("signature", r#"keyId="https://a.example/k",headers="host tracestate""#),
            ("signature-input", r#"sig1=("@method" "traceparent");keyid="https://a.example/k""#),
            ("signature-input", "sig1=(("),
        ] {
            let lines = [signature, ("traceparent", "theirs"), ("tracestate", "x=y")];
            let lines_before: Vec<_> =
                lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let mut after = put_into(&lines);
            after.sort();
            let mut before = lines_before;
            before.sort();
            assert_eq!(after, before, "{signature:?}");
        }
    }
}
