//! What this service counts in metrics beside its lanes, and the words for it. Never a remote's name: there are as many as the
//! network has.

use std::sync::Arc;

use federation::Attempted;
use fedstream_service::attributes::{ERROR_TYPE, HTTP_METHOD};
use fedstream_service::metrics::KeyValue;
use fedstream_service::metrics::http::status;
use fedstream_service::metrics::table::{CLIENT_DURATION, REMOTES_DOWN};

use crate::remotes::Remotes;

/// Shows how many remotes are down from now on.
pub fn observe(remotes: &Arc<Remotes>) {
    let remotes = Arc::clone(remotes);
    REMOTES_DOWN.observe(move |observed| observed.is(remotes.down() as f64, &[]));
}

/// The requests of an attempt ended.
pub fn requested(attempted: &Attempted) {
    for request in &attempted.requests {
        let told = match request.answered {
            Ok(code) => status(code),
            Err(kind) => KeyValue::new(ERROR_TYPE, kind.as_str()),
        };
        CLIENT_DURATION.record(request.took.as_secs_f64(), &[KeyValue::new(HTTP_METHOD, "POST"), told]);
    }
}

#[cfg(test)]
mod tests {
    use federation::attempt::NoAnswer::{BrokenOff, Connect, NoRequest, Timeout};
    use fedstream_service::metrics::table::NO_ANSWER;

    #[test]
    fn every_word_is_one_of_the_definition() {
        assert_eq!([Connect, Timeout, BrokenOff, NoRequest].map(|kind| kind.as_str()), *NO_ANSWER);
    }
}
