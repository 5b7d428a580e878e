//! Until when the destination will accept the signature (DESIGN section 4): worked out once, at the front door, and stored,
//! so that nobody downstream has to read the signature again.

use fedstream_service::signature::Signature;
use std::time::Duration;

use http::HeaderMap;
use time::OffsetDateTime;

/// A date this far ahead of us is a wrong clock, not a later deadline.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// min(`expires`, (`created` or `Date`) + window); with neither date, receipt + window. Without a window the destination
/// checks no dates, and only `expires` counts.
pub fn of(
    signature: Option<&Signature>,
    headers: &HeaderMap,
    received: OffsetDateTime,
    window: Option<Duration>,
) -> Option<OffsetDateTime> {
    let expires = signature.and_then(|signature| signature.expires).and_then(at);
    let by_window = window.map(|window| by_window(signature, headers, received, window));
    expires.into_iter().chain(by_window).min()
}

fn by_window(
    signature: Option<&Signature>,
    headers: &HeaderMap,
    received: OffsetDateTime,
    window: Duration,
) -> OffsetDateTime {
    let created = signature.and_then(|signature| signature.created).and_then(at);
    let dated = created.or_else(|| date(headers)).unwrap_or(received);
    let dated = if dated > received + AHEAD_MAX { received } else { dated };
    // A window or a date at the end of time is no reason to panic.
    dated.checked_add(window.try_into().unwrap_or(time::Duration::MAX)).unwrap_or(received)
}

fn at(unix_seconds: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(unix_seconds).ok()
}

/// The Date header, where it is one date that can be read (RFC 9110, section 5.6.7).
fn date(headers: &HeaderMap) -> Option<OffsetDateTime> {
    let text = headers.get("date")?.to_str().ok()?;
    httpdate::parse_http_date(text).ok().map(OffsetDateTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60;
    const WINDOW: Duration = Duration::from_secs(55 * 60);
    /// Sun, 22 Nov 2026 03:59:04 GMT
    const RECEIVED: i64 = 1_795_319_944;

    /// Seconds from receipt to the deadline.
    fn left(created: Option<i64>, expires: Option<i64>, date: Option<i64>) -> i64 {
        let signature = Signature {
            created: created.map(|s| RECEIVED + s),
            expires: expires.map(|s| RECEIVED + s),
            ..Signature::default()
        };
        let mut headers = HeaderMap::new();
        if let Some(seconds) = date {
            let date = httpdate::fmt_http_date(at(RECEIVED + seconds).unwrap().into());
            headers.insert("date", date.parse().unwrap());
        }
        of(Some(&signature), &headers, at(RECEIVED).unwrap(), Some(WINDOW)).unwrap().unix_timestamp() - RECEIVED
    }

    #[test]
    fn the_window_runs_from_the_date_of_the_signature() {
        assert_eq!(left(None, None, Some(-10 * MINUTE)), 45 * MINUTE);
        assert_eq!(left(Some(-20 * MINUTE), None, Some(-10 * MINUTE)), 35 * MINUTE, "created comes before Date");
    }

    #[test]
    fn an_earlier_expiry_ends_it_sooner_and_a_later_one_not_later() {
        assert_eq!(left(Some(0), Some(5 * MINUTE), None), 5 * MINUTE);
        assert_eq!(left(Some(0), Some(90 * MINUTE), None), 55 * MINUTE);
    }

    #[test]
    fn without_any_date_it_runs_from_receipt() {
        assert_eq!(left(None, None, None), 55 * MINUTE);
        let headers = [("date".parse().unwrap(), "yesterday".parse().unwrap())].into_iter().collect();
        assert_eq!(of(None, &headers, at(RECEIVED).unwrap(), Some(WINDOW)), at(RECEIVED + 55 * MINUTE));
    }

    #[test]
    fn where_no_dates_are_checked_only_an_expiry_ends_it() {
        let mut signature = Signature { created: Some(0), ..Signature::default() };
        let received = at(RECEIVED).unwrap();
        assert_eq!(of(Some(&signature), &HeaderMap::new(), received, None), None);
        signature.expires = Some(RECEIVED + MINUTE);
        assert_eq!(of(Some(&signature), &HeaderMap::new(), received, None), at(RECEIVED + MINUTE));
    }

    #[test]
    fn a_date_far_ahead_counts_as_receipt_and_a_near_one_as_itself() {
        assert_eq!(left(None, None, Some(120 * MINUTE)), 55 * MINUTE);
        assert_eq!(left(None, None, Some(4 * MINUTE)), 59 * MINUTE);
    }

    #[test]
    fn a_number_beyond_time_is_no_date() {
        let signature = Signature { created: Some(i64::MAX), expires: Some(i64::MAX), ..Signature::default() };
        let received = at(RECEIVED).unwrap();
        assert_eq!(of(Some(&signature), &HeaderMap::new(), received, Some(WINDOW)), Some(received + WINDOW));
        assert_eq!(of(None, &HeaderMap::new(), received, Some(Duration::MAX)), Some(received));
    }
}
