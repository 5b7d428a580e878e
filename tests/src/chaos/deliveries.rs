//! What the batch-receiver says it did at the instance: `delivery begun` and `delivery ended` in its log, in order.
//!
//! Only from here can be seen which owner an item came from (epoch), which life of the batch-receiver it was (gate), and
//! whether the answer of the instance was heard. That an item was at the instance at all is what the instance says.

use std::collections::HashMap;
use std::time::SystemTime;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One item on its way to the instance and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `<destination>/<source>`.
    pub lane: String,
    /// Its sequence in the stream.
    pub seq: u64,
    /// The owner's fencing token.
    pub epoch: u64,
    /// The life of the batch-receiver.
    pub gate: String,
    /// The activity's id.
    pub id: String,
    /// When it was begun.
    pub begun: SystemTime,
    /// When it had ended and with what; `None`: the process ended before.
    pub ended: Option<(SystemTime, String)>,
    /// Sequence and epoch of one of the lane and of the same gate that was begun and not ended when this one was begun.
    pub beside: Option<(u64, u64)>,
}

impl Attempt {
    /// Whether the batch-receiver knows a final outcome of it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.ended.as_ref().is_some_and(|(_, outcome)| outcome != "retry")
    }
}

/// All attempts of a log, in the order in which they were begun.
#[must_use]
pub fn read(log: &str) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    // The open one of a lane and gate.
    let mut open: HashMap<(String, String), usize> = HashMap::new();
    for line in log.lines() {
        // A process that is killed may leave half a line.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let (Some(word), Some(at)) = (line["message"].as_str(), moment(&line["timestamp"])) else { continue };
        match word {
            "delivery begun" => {
                let mut attempt = attempt(&line, at);
                let key = (attempt.lane.clone(), attempt.gate.clone());
                attempt.beside = open.get(&key).map(|number| (attempts[*number].seq, attempts[*number].epoch));
                open.insert(key, attempts.len());
                attempts.push(attempt);
            }
            "delivery ended" => {
                let attempt = attempt(&line, at);
                let same = |other: &&mut Attempt| {
                    other.ended.is_none()
                        && (&other.lane, other.seq, &other.gate) == (&attempt.lane, attempt.seq, &attempt.gate)
                };
                if let Some(begun) = attempts.iter_mut().rev().find(same) {
                    begun.ended = Some((at, text(&line["outcome"])));
                }
                open.remove(&(attempt.lane, attempt.gate));
            }
            _ => {}
        }
    }
    attempts
}

fn attempt(line: &Value, at: SystemTime) -> Attempt {
    Attempt {
        lane: text(&line["lane"]),
        seq: number(&line["seq"]),
        epoch: number(&line["epoch"]),
        gate: text(&line["gate"]),
        id: activity(line),
        begun: at,
        ended: None,
        beside: None,
    }
}

/// From the span that the line was logged in: the lines themselves name the message id, which is the broker's business.
fn activity(line: &Value) -> String {
    let spans = line["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
    spans.iter().map(|span| &span["activitypub.activity.id"]).find(|id| id.is_string()).map(text).unwrap_or_default()
}

/// Numbers are logged as numbers or as texts, by how they are given.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn moment(value: &Value) -> Option<SystemTime> {
    Some(OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(word: &str, seq: u64, gate: &str, outcome: &str) -> String {
        serde_json::json!({
            "timestamp": "2026-11-22T09:00:00.000001Z", "level": "DEBUG", "message": word, "lane": "b.test/a.test",
            "seq": seq, "epoch": "7", "gate": gate, "outcome": outcome,
            "spans": [{"name": "deliver", "activitypub.activity.id": format!("http://a/{seq}")}],
        })
        .to_string()
    }

    #[test]
    fn a_begun_one_has_its_end_unless_the_process_ended_before() {
        let log = [
            line("delivery begun", 1, "g", ""),
            line("delivery ended", 1, "g", "retry"),
            "{\"timesta".to_owned(),
            line("delivery begun", 1, "g", ""),
            line("delivery begun", 1, "h", ""),
            line("delivery ended", 1, "h", "delivered"),
        ];
        let read = read(&log.join("\n"));
        let ends: Vec<Option<&str>> =
            read.iter().map(|attempt| attempt.ended.as_ref().map(|(_, outcome)| outcome.as_str())).collect();
        assert_eq!(ends, [Some("retry"), None, Some("delivered")]);
        assert!(read.iter().all(|attempt| attempt.beside.is_none()), "{read:?}");
        assert_eq!((read[0].epoch, read[0].id.as_str()), (7, "http://a/1"));
    }

    #[test]
    fn two_at_once_are_noticed() {
        let log = [line("delivery begun", 1, "g", ""), line("delivery begun", 2, "g", "")];
        assert_eq!(read(&log.join("\n"))[1].beside, Some((1, 7)));
    }
}
