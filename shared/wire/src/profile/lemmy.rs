//! Lemmy: 400 to nearly everything, and the body tells why.
//!
//! | body | meaning | known from |
//! |---|---|---|
//! | `{"error":"unknown","message":""}` | it has the activity already | answers of 0.19.20 |
//! | `inbox_timeout` | it gave up after 9 s; the id is stored before the work is done | answers of 0.19.20; on the way to 1.0 the name was inside `federation_error`, then `untranslated_error` (published code, no answer seen) |
//! | message begins with "Http Signature is expired" | the signature's hour is over | answers of 0.19.20; "Header is expired" in reports about 0.17 |
//! | message begins as its connection pool's own faults do | the database is away, or all of its connections are taken | answers of 0.19.20; the second in reports about 0.18 |
//! | anything else | refused for good | |
//!
//! 1.0 adds a field `cause` to each answer (published code), which changes none of them. Its 404 `not_found` may be about anything
//! that the activity names, so it stays a refusal.
//!
//! The pool's faults come before the id is stored, as a rule: the same bytes are accepted later. Where such a fault
//! comes after it, the repeat is called a duplicate, as it would be for a sender that posts directly.

use super::{Reading, Refusal};

/// The status of every refusal that has a meaning of its own.
const REFUSED: u16 = 400;

/// How its answers begin once a signature is too old, newest version first.
const EXPIRED: [&str; 2] = ["Http Signature is expired", "Header is expired"];

/// How its connection pool begins: no connection could be made, or none became free.
const NO_DATABASE: [&str; 2] = ["Error occurred while creating a new object: ", "Timeout occurred while "];

/// Where versions on the way to 1.0 put the names of their federation errors, written as in the code.
const WRAPPERS: [&str; 2] = ["federation_error", "untranslated_error"];

pub(super) fn read(status: u16, refusal: &Refusal) -> Reading {
    if status != REFUSED {
        return Reading::Rejected;
    }
    if is_inbox_timeout(refusal) {
        return Reading::Unprocessed;
    }
    if refusal.error == "unknown" && refusal.message() == Some("") {
        return Reading::Duplicate;
    }
    let begins_with = |beginnings: &[&str]| beginnings.iter().any(|text| refusal.sentence().starts_with(text));
    if begins_with(&EXPIRED) {
        Reading::Expired
    } else if begins_with(&NO_DATABASE) {
        Reading::Retry("its database is away or busy")
    } else {
        Reading::Rejected
    }
}

fn is_inbox_timeout(refusal: &Refusal) -> bool {
    let inner = || refusal.message.as_ref().and_then(|message| message.get("error")?.as_str());
    refusal.error == "inbox_timeout" || (WRAPPERS.contains(&refusal.error.as_str()) && inner() == Some("InboxTimeout"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile;
    use fedstream_lane::Profile;
    use std::collections::BTreeMap;

    /// Genuine requests between three instances, with what each was answered.
    const GENUINE: &str = include_str!("../../../../tests/fixtures/lemmy-requests.ndjson");

    fn of(body: &str) -> Reading {
        profile::read(Profile::Lemmy, 400, body.as_bytes())
    }

    #[test]
    fn every_refusal_of_a_genuine_lemmy_is_read() {
        let mut found: BTreeMap<String, (Reading, usize)> = BTreeMap::new();
        for line in GENUINE.lines() {
            let request: serde_json::Value = serde_json::from_str(line).expect("a fixture");
            if request["status"] == 200 {
                continue;
            }
            assert_eq!(request["status"], 400, "{request}");
            let body = request["response_body"].as_str().expect("a body").to_owned();
            let reading = of(&body);
            found.entry(body).or_insert((reading, 0)).1 += 1;
        }
        let expected = [
            (r#"{"error":"cannot_receive_page"}"#, Reading::Rejected, 2),
            (r#"{"error":"unknown","message":""}"#, Reading::Duplicate, 4),
            (r#"{"error":"unknown","message":"Object was not found in local database"}"#, Reading::Rejected, 1),
            (r#"{"error":"unknown","message":"cant accept local object from remote instance"}"#, Reading::Rejected, 2),
        ];
        assert_eq!(found, expected.map(|(body, reading, count)| (body.to_owned(), (reading, count))).into());
    }

    #[test]
    fn an_old_signature_is_expired_in_each_versions_words() {
        for body in [
            r#"{"error":"unknown","message":"Http Signature is expired, checked Date header, at 2026-11-22"}"#,
            r#"{"error":"unknown","message":"Http Signature is expired, checked Date header","cause":"x"}"#,
            r#"{"error":"Http Signature is expired, provided 1 hour ago"}"#,
            "Header is expired",
        ] {
            assert_eq!(of(body), Reading::Expired, "{body}");
        }
    }

    #[test]
    fn a_database_that_is_away_is_a_fault_of_the_moment() {
        for message in [
            "Error occurred while creating a new object: FATAL: the database is not currently accepting connections",
            "Error occurred while creating a new object: could not connect to server: Connection refused",
            "Timeout occurred while waiting for a slot to become available",
        ] {
            let reading = of(&format!(r#"{{"error":"unknown","message":"{message}"}}"#));
            assert!(matches!(reading, Reading::Retry(_)), "{message}: {reading:?}");
        }
    }

    #[test]
    fn a_timeout_of_its_own_leaves_the_activity_unprocessed() {
        for body in [
            r#"{"error":"inbox_timeout"}"#,
            r#"{"error":"inbox_timeout","message":"deadline has elapsed"}"#,
            r#"{"error":"inbox_timeout","cause":"deadline has elapsed"}"#,
            r#"{"error":"federation_error","message":{"error":"InboxTimeout"}}"#,
            r#"{"error":"untranslated_error","message":{"error":"InboxTimeout"}}"#,
        ] {
            assert_eq!(of(body), Reading::Unprocessed, "{body}");
        }
    }

    #[test]
    fn refusals_and_what_nobody_has_seen_before_are_rejections() {
        for body in [
            r#"{"error":"unknown","message":"Incoming activity has invalid signature"}"#,
            r#"{"error":"unknown","message":"Incoming activity has invalid digest for body"}"#,
            r#"{"error":"unknown"}"#,
            r#"{"error":"unknown","message":null}"#,
            r#"{"error":"","message":""}"#,
            r#"{"error":"something_new","message":""}"#,
            r#"{"error":"federation_error","message":{"error":"InvalidCommunity"}}"#,
            "",
        ] {
            assert_eq!(of(body), Reading::Rejected, "{body}");
        }
    }

    #[test]
    fn what_a_stranger_wrote_does_not_choose_the_outcome() {
        for message in [
            "no such user: Http Signature is expired",
            "no such user: Error occurred while creating a new object: not currently accepting connections",
            "no such user: inbox_timeout",
        ] {
            assert_eq!(of(&format!(r#"{{"error":"unknown","message":"{message}"}}"#)), Reading::Rejected, "{message}");
        }
    }

    #[test]
    fn other_statuses_mean_what_they_say() {
        for status in [401, 403, 404, 410, 413] {
            for body in [r#"{"error":"unknown","message":""}"#, r#"{"error":"inbox_timeout"}"#] {
                assert_eq!(profile::read(Profile::Lemmy, status, body.as_bytes()), Reading::Rejected, "{status}");
            }
        }
    }
}
