//! Names of span attributes and span events, written once: those of OpenTelemetry's semantic conventions for HTTP and
//! messaging, Fedify's `activitypub.*`, and our own `fedstream.*`. `docs/traces.md` says which span has which.
//!
//! tracing's macros take a constant in braces: `info_span!("deliver", { attributes::LANE } = %lane)`.
//!
//! A number is an `i64`: an unsigned one would be exported as text.

use std::borrow::Cow;

/// HTTP: the request's method.
pub const HTTP_METHOD: &str = "http.request.method";
/// HTTP: the answer's status.
pub const HTTP_STATUS: &str = "http.response.status_code";
/// HTTP: the kind of path.
pub const HTTP_ROUTE: &str = "http.route";
/// HTTP: the whole URL that is asked.
pub const URL_FULL: &str = "url.full";
/// HTTP: `http` or `https`, as this service is spoken to: neither ends TLS.
pub const URL_SCHEME: &str = "url.scheme";
/// HTTP: path without query.
pub const URL_PATH: &str = "url.path";
/// HTTP: whose server, by name.
pub const SERVER_ADDRESS: &str = "server.address";
/// HTTP: its port, where it is not the scheme's own.
pub const SERVER_PORT: &str = "server.port";
/// Who holds the other end of the connection.
pub const PEER_ADDRESS: &str = "network.peer.address";
/// Why it failed, of few kinds: a status, a problem type, the end of a batch.
pub const ERROR_TYPE: &str = "error.type";

/// Messaging: always [`NATS`].
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// Messaging: what the broker calls it.
pub const MESSAGING_OPERATION: &str = "messaging.operation.name";
/// Messaging: what the conventions call it.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// Messaging: the subject.
pub const MESSAGING_DESTINATION: &str = "messaging.destination.name";
/// Messaging: the kind of subject.
pub const MESSAGING_TEMPLATE: &str = "messaging.destination.template";
/// Messaging: Nats-Msg-Id.
pub const MESSAGE_ID: &str = "messaging.message.id";
/// Messaging: bytes of the payload.
pub const MESSAGE_BODY_SIZE: &str = "messaging.message.body.size";
/// Messaging: activities in a batch.
pub const BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";

/// Fedify: the activity's id.
pub const ACTIVITY_ID: &str = "activitypub.activity.id";
/// Fedify: its type.
pub const ACTIVITY_TYPE: &str = "activitypub.activity.type";
/// Fedify: the instance that sent it.
pub const REMOTE_HOST: &str = "activitypub.remote.host";

/// `<destination>/<source>`
pub const LANE: &str = "fedstream.lane";
/// Sequence in the stream.
pub const SEQ: &str = "fedstream.seq";
/// The owner's fencing token.
pub const EPOCH: &str = "fedstream.epoch";
/// Which try this is, from 1, as far as this owner knows.
pub const ATTEMPT: &str = "fedstream.attempt";
/// Seconds from the front door's answer to the beginning of this try.
pub const LANE_WAIT_S: &str = "fedstream.lane.wait_s";
/// What became of the activity, or `again`.
pub const OUTCOME: &str = "fedstream.outcome";
/// The form of a delivery's signature.
pub const SIGNATURE: &str = "fedstream.signature";
/// How a batch ended.
pub const BATCH_END: &str = "fedstream.batch.end";
/// It had been stored before.
pub const DUPLICATE: &str = "fedstream.duplicate";
/// Why a copy was parked.
pub const PARK_REASON: &str = "fedstream.park.reason";
/// How often it was tried.
pub const ATTEMPTS: &str = "fedstream.attempts";
/// In words, for people.
pub const CAUSE: &str = "fedstream.cause";
/// On a span that is exported whatever is sampled.
pub const ALWAYS_SAMPLED: &str = "fedstream.always_sampled";

/// Event: the activity has to be tried again.
pub const RETRY: &str = "fedstream.retry";
/// Event: it goes back behind one before it that failed, or whose batch did.
pub const REWIND: &str = "fedstream.rewind";
/// Event: the far side misses an earlier batch.
pub const GAP: &str = "fedstream.gap";
/// Event: the far side is in a new life.
pub const NEW_GATE: &str = "fedstream.new_gate";
/// Event: the far side knows a later owner.
pub const STALE_EPOCH: &str = "fedstream.stale_epoch";
/// Event: the lane came to this owner.
pub const LEASE_TAKEN: &str = "fedstream.lease.taken";
/// Event: the lane was lost, or given back, with work in flight.
pub const LEASE_LOST: &str = "fedstream.lease.lost";
/// Event: the same owner goes on under a new epoch.
pub const NEW_EPOCH: &str = "fedstream.lease.new_epoch";
/// Event: the copy could not be parked, and is tried again.
pub const PARK_FAILED: &str = "fedstream.park.failed";

/// [`MESSAGING_SYSTEM`]'s value.
pub const NATS: &str = "nats";
/// [`MESSAGING_TEMPLATE`] of what came in.
pub const INBOX_TEMPLATE: &str = "fed.inbox.{destination}.{source}";

/// Every name of ours, for the page that explains them.
pub const OURS: [&str; 22] = [
    LANE,
    SEQ,
    EPOCH,
    ATTEMPT,
    LANE_WAIT_S,
    OUTCOME,
    SIGNATURE,
    BATCH_END,
    DUPLICATE,
    PARK_REASON,
    ATTEMPTS,
    CAUSE,
    ALWAYS_SAMPLED,
    RETRY,
    REWIND,
    GAP,
    NEW_GATE,
    STALE_EPOCH,
    LEASE_TAKEN,
    LEASE_LOST,
    NEW_EPOCH,
    PARK_FAILED,
];

/// A number as an attribute.
#[must_use]
pub fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// A target or an URL without its query, which is none of a trace's or a log's business: senders put tokens there.
#[must_use]
pub fn without_query(target: &str) -> Cow<'_, str> {
    target.split_once('?').map_or(Cow::Borrowed(target), |(path, _)| Cow::Owned(format!("{path}?…")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_query_nothing_is_left_but_that_there_is_one() {
        for (target, shown) in [("/inbox", "/inbox"), ("/inbox?token=s3cret?&b", "/inbox?…"), ("?x", "?…")] {
            assert_eq!(without_query(target), shown);
        }
    }

    #[test]
    fn the_page_about_traces_explains_every_name_of_ours_and_no_other() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/traces.md")).unwrap();
        let explained = |name: &str| page.contains(&format!("`{name}`"));
        let missing: Vec<&str> = OURS.into_iter().filter(|name| !explained(name)).collect();
        assert!(missing.is_empty(), "docs/traces.md lacks {missing:?}");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `fedstream.")?.split('`').next());
        let unknown: Vec<&str> = rows.filter(|rest| !OURS.contains(&format!("fedstream.{rest}").as_str())).collect();
        assert!(unknown.is_empty(), "docs/traces.md explains what is not there: {unknown:?}");
    }
}
