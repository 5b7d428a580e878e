//! `/metrics`, in Prometheus' text format.

use prometheus::TextEncoder;

use super::REGISTRY;

/// The page's Content-Type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric of this process as it is now; none where metrics were never started.
#[must_use]
pub fn text() -> Option<String> {
    // What can't be encoded is a name that Prometheus refuses: a test of the whole table would have found it.
    TextEncoder::new().encode_to_string(&REGISTRY.get()?.gather()).ok()
}
