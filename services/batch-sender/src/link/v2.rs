//! Our own format: a batch is understood or not before the 200; after it, lines come as outcomes are known. Only what
//! [`AnswerReader`] lets through counts.

use std::time::Duration;

use fedstream_carrier::Ended;
use fedstream_lane::{Answer, End, GateId, Seq};
use fedstream_service::shutdown::CancellationToken;
use fedstream_wire::v2::{self, AnswerReader, Batch, Closing, Line, RefusalKind};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::Response;

use super::{Link, Measured, chain, gate_of, refusal_body, retry_after_ms, seconds_to_ms, sized, unless};

/// After the closing line: how long to wait for the end of the answer, so that the connection can be used again.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A batch-receiver that lives sends a line every 10 s. A proxy that collects the answer first is the usual cause of none.
const HELD_BACK: &str = "is the far side away, or does a proxy hold the answer back?";

impl Link {
    pub(super) async fn post_v2<F, S>(
        &self,
        batch: &Batch,
        traceparent: Option<String>,
        called_off: &CancellationToken,
        mut settle: F,
    ) -> Ended
    where
        F: FnMut(Seq, Answer) -> S,
        S: Future<Output = ()>,
    {
        let _measured = Measured::begin(batch.items.len());
        let sending = tokio::time::timeout(self.answer_timeout, self.send_v2(batch, traceparent));
        let Some(sent) = unless(called_off, sending).await else { return Ended::called_off() };
        let response = match sent {
            Err(_) => return self.lost(format!("no answer within {:?}: {HELD_BACK}", self.answer_timeout)),
            Ok(Err(error)) => return self.lost(chain(&error.without_url())),
            Ok(Ok(response)) => response,
        };
        self.note_answer(&response);
        if response.status() != StatusCode::OK {
            let refused = unless(called_off, refused(response, self.answer_timeout)).await;
            return refused.unwrap_or_else(Ended::called_off);
        }
        if let Some(fault) = not_an_answer(&response, batch.header.gate) {
            return Ended::lost(fault);
        }
        self.read_lines(response, batch, called_off, &mut settle).await
    }

    async fn send_v2(&self, batch: &Batch, traceparent: Option<String>) -> Result<Response, reqwest::Error> {
        let (encoding, body) = self.compression.compress(batch.encode());
        let mut request = self
            .request(traceparent)
            .header(CONTENT_TYPE, v2::CONTENT_TYPE)
            .header(ACCEPT, v2::ANSWER_CONTENT_TYPE)
            .body(sized(body));
        if let Some(name) = encoding.name() {
            request = request.header(CONTENT_ENCODING, name);
        }
        request.send().await
    }

    async fn read_lines<F, S>(
        &self,
        mut response: Response,
        batch: &Batch,
        called_off: &CancellationToken,
        settle: &mut F,
    ) -> Ended
    where
        F: FnMut(Seq, Answer) -> S,
        S: Future<Output = ()>,
    {
        let mut reader = AnswerReader::new(batch.items.iter().map(|item| item.seq));
        let mut closing = None;
        let lost = loop {
            // After the closing line all is said: whatever happens to the connection then changes nothing.
            let patience = if closing.is_some() { END_TIMEOUT } else { self.answer_timeout };
            let reading = tokio::time::timeout(patience, response.chunk());
            let Some(read) = unless(called_off, reading).await else { return Ended::called_off() };
            let chunk = match read {
                Err(_) => break format!("no line of the answer for {patience:?}: {HELD_BACK}"),
                Ok(Err(error)) => break chain(&error.without_url()),
                Ok(Ok(None)) => break "the answer ended without its closing line".to_owned(),
                Ok(Ok(Some(chunk))) => chunk,
            };
            let mut outcomes = Vec::new();
            let result = reader.push(&chunk, |line| match line {
                Line::Silence => {}
                Line::Outcome(seq, answer) => outcomes.push((seq, answer)),
                Line::End(end) => closing = Some(end),
            });
            for (seq, answer) in outcomes {
                settle(seq, answer).await;
            }
            if let Err(error) = result {
                break error.to_string();
            }
        };
        match closing {
            Some(closing) => ended(closing),
            None => self.lost(lost),
        }
    }
}

/// An answer that isn't 200.
async fn refused(mut response: Response, within: Duration) -> Ended {
    let status = response.status();
    let retry_after_ms = retry_after_ms(&response);
    let body = refusal_body(&mut response, within).await;
    let refusal: v2::Refusal = serde_json::from_slice(&body).unwrap_or_default();
    let cause = if refusal.detail.is_empty() {
        format!("the batch-receiver answered {status}")
    } else {
        format!("the batch-receiver answered {status}: {}", refusal.detail)
    };
    let end = match (status, refusal.kind()) {
        (StatusCode::CONFLICT, RefusalKind::NewGate) => refusal.current_gate().map(End::NewGate),
        (StatusCode::CONFLICT, RefusalKind::StaleEpoch) => refusal.known_epoch().map(End::StaleEpoch),
        (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE, _) => Some(End::Unfit),
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) => {
            Some(End::Overloaded { retry_after_ms })
        }
        _ => None,
    };
    Ended::because(end.unwrap_or(End::Refused { retry_after_ms }), cause)
}

/// A 200 that no batch-receiver gave, or another one than was meant.
fn not_an_answer(response: &Response, gate: Option<GateId>) -> Option<String> {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if content_type.split(';').next().map(str::trim) != Some(v2::ANSWER_CONTENT_TYPE) {
        return Some(format!("200 with content type {content_type:?}: is BATCH_RECEIVER_DOMAIN a batch-receiver?"));
    }
    (gate.is_none() || gate_of(response.headers()) != gate)
        .then(|| "200 from another life of the batch-receiver than the batch was meant for".to_owned())
}

fn ended(closing: Closing) -> Ended {
    match closing {
        Closing::Done => Ended { end: End::Done, cause: None },
        Closing::Retry { seq, status, retry_after_s, alive, cause } => {
            let retry_after_ms = retry_after_s.map(seconds_to_ms);
            Ended::because(End::Retry { seq, status, alive, retry_after_ms }, cause)
        }
        Closing::Gap { last } => {
            Ended::because(End::Gap, format!("an earlier batch is missing; the far side has sequence {last}"))
        }
        Closing::Overloaded { retry_after_s } => Ended::because(
            End::Overloaded { retry_after_ms: retry_after_s.map(seconds_to_ms) },
            "the batch-receiver has no room, or is leaving",
        ),
        Closing::StaleEpoch { known } => {
            Ended::because(End::StaleEpoch(known), "a later owner's batch came in between")
        }
    }
}
