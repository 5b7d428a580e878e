//! One activity's way as its spans tell it: in words and milliseconds, for people.
//!
//! What lies between two spans has no span of its own: the wait in the lane, the crossing, the wait for those before it,
//! the way back. Their ends say when that was.

use std::collections::HashMap;
use std::fmt;

use crate::otlp_sink::Span;

const PUBLISH: &str = "publish fed.inbox.{destination}.{source}";
const PROCESS: &str = "process fed.inbox.{destination}.{source}";
const RECEIVER: &str = "batch-receiver";

/// Width of the bars.
const BAR: usize = 32;

/// The way of an activity.
#[derive(Debug)]
pub struct Waterfall {
    activity: String,
    lane: String,
    seq: String,
    began_ns: u64,
    ended_ns: u64,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    from_ns: u64,
    to_ns: u64,
    text: String,
}

impl Waterfall {
    /// The activity among these spans that took longest from its request to its outcome.
    #[must_use]
    pub fn of_slowest(spans: &[Span]) -> Option<Self> {
        let mut traces: HashMap<&str, Vec<&Span>> = HashMap::new();
        for span in spans {
            traces.entry(&span.trace_id).or_default().push(span);
        }
        let took = |trace: &Vec<&Span>| {
            let publish = trace.iter().find(|span| span.name == PUBLISH)?;
            let outcome = trace.iter().filter(|span| is_outcome(span)).map(|span| span.ended_ns).max()?;
            Some(outcome.saturating_sub(publish.began_ns))
        };
        let (_, slowest) =
            traces.values().filter_map(|trace| Some((took(trace)?, trace))).max_by_key(|(took, _)| *took)?;
        Self::of(slowest, spans)
    }

    /// The activity of this trace; `all` has the batches that it was in.
    fn of(trace: &[&Span], all: &[Span]) -> Option<Self> {
        let publish = trace.iter().find(|span| span.name == PUBLISH)?;
        let request = trace.iter().find(|span| span.span_id == publish.parent_id)?;
        let mut attempts: Vec<&Span> = trace.iter().copied().filter(|span| span.name == PROCESS).collect();
        attempts.sort_by_key(|span| span.began_ns);
        let mut steps = Vec::new();
        let mut step = |from_ns, to_ns, text: String| steps.push(Step { from_ns, to_ns, text });
        let status = request.get("http.response.status_code");
        step(request.began_ns, request.ended_ns, format!("the front door takes it, and answers {status}"));
        step(publish.began_ns, publish.ended_ns, "  the broker stores it".to_owned());
        let mut since = publish.ended_ns;
        for attempt in &attempts {
            step(since, attempt.began_ns, "it waits in its lane".to_owned());
            since = attempt.ended_ns;
            let delivery = trace.iter().find(|span| span.parent_id == attempt.span_id && span.service == RECEIVER);
            let Some(delivery) = delivery else {
                step(attempt.began_ns, attempt.ended_ns, format!("a try that came to nothing: {}", why(attempt)));
                continue;
            };
            let batch = all.iter().find(|span| {
                let this = |(trace, id): &(String, String)| *trace == span.trace_id && *id == span.span_id;
                span.service == RECEIVER && delivery.links.iter().any(this)
            });
            if let Some(batch) = batch {
                let items = batch.get("messaging.batch.message_count");
                step(attempt.began_ns, batch.began_ns, format!("it crosses the link, in a batch of {items}"));
                step(
                    batch.began_ns,
                    delivery.began_ns,
                    "the batch-receiver reads it, and tries those before it".to_owned(),
                );
            }
            let status = delivery.get("http.response.status_code");
            let answered = if status.is_empty() { "does not answer".to_owned() } else { format!("answers {status}") };
            step(delivery.began_ns, delivery.ended_ns, format!("the instance works on it, and {answered}"));
            let back = if is_outcome(attempt) {
                format!("the outcome travels back: {}", attempt.get("fedstream.outcome"))
            } else {
                format!("no outcome, and it is tried again: {}", why(attempt))
            };
            step(delivery.ended_ns, attempt.ended_ns, back);
        }
        Some(Self {
            activity: publish.get("activitypub.activity.id").to_owned(),
            lane: publish.get("fedstream.lane").to_owned(),
            seq: publish.get("fedstream.seq").to_owned(),
            began_ns: request.began_ns,
            ended_ns: since,
            steps,
        })
    }

    fn bar(&self, step: &Step) -> String {
        let total = self.ended_ns.saturating_sub(self.began_ns).max(1);
        let at = |ns: u64| {
            let column = u128::from(ns.saturating_sub(self.began_ns)) * BAR as u128 / u128::from(total);
            usize::try_from(column).unwrap_or(BAR).min(BAR - 1)
        };
        // Two machines' clocks: a step may end before it begins.
        let from = at(step.from_ns);
        let to = at(step.to_ns).max(from);
        format!("{}{}{}", " ".repeat(from), "#".repeat(to - from + 1), " ".repeat(BAR - 1 - to))
    }
}

/// Whether a try ended with the instance's word.
fn is_outcome(span: &Span) -> bool {
    span.name == PROCESS && !["", "again"].contains(&span.get("fedstream.outcome"))
}

fn why(attempt: &Span) -> &str {
    let cause = attempt.events.iter().find_map(|event| event.attributes.get("fedstream.cause"));
    cause.map_or("its batch was called back", String::as_str)
}

fn ms(ns: u64) -> String {
    let tenths = ns / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

impl fmt::Display for Waterfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = ms(self.ended_ns.saturating_sub(self.began_ns));
        writeln!(
            f,
            "the slowest activity took {total} ms: sequence {} of lane {}, {}",
            self.seq, self.lane, self.activity
        )?;
        writeln!(f, "\n  {:>10}  {:>10}", "at ms", "for ms")?;
        for step in &self.steps {
            let at = ms(step.from_ns.saturating_sub(self.began_ns));
            let took = ms(step.to_ns.saturating_sub(step.from_ns));
            writeln!(f, "  {at:>10}  {took:>10}  |{}|  {}", self.bar(step), step.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(service: &str, name: &str, id: &str, parent: &str, ms: (u64, u64)) -> Span {
        Span {
            service: service.into(),
            name: name.into(),
            trace_id: "t".into(),
            span_id: id.into(),
            parent_id: parent.into(),
            attributes: HashMap::new(),
            numbers: HashMap::new(),
            links: Vec::new(),
            link_states: Vec::new(),
            events: Vec::new(),
            kind: 1,
            status: (0, String::new()),
            flags: 1,
            began_ns: ms.0 * 1_000_000,
            ended_ns: ms.1 * 1_000_000,
        }
    }

    fn with(mut span: Span, name: &str, value: &str) -> Span {
        span.attributes.insert(name.into(), value.into());
        span
    }

    #[test]
    fn the_steps_are_in_order_and_add_up() {
        let request =
            with(span("inbox-receiver", "POST /inbox", "r", "", (100, 110)), "http.response.status_code", "204");
        let publish = span("inbox-receiver", PUBLISH, "p", "r", (102, 108));
        let lost = with(span("batch-sender", PROCESS, "l", "p", (200, 300)), "fedstream.outcome", "again");
        let process = with(span("batch-sender", PROCESS, "a", "p", (400, 900)), "fedstream.outcome", "delivered");
        let mut delivery =
            with(span(RECEIVER, "POST /inbox", "d", "a", (650, 700)), "http.response.status_code", "200");
        delivery.links.push(("b".into(), "s".into()));
        let mut batch = with(span(RECEIVER, "POST /batch", "s", "c", (550, 700)), "messaging.batch.message_count", "7");
        batch.trace_id = "b".into();
        let text = Waterfall::of_slowest(&[request, publish, lost, process, delivery, batch]).unwrap().to_string();
        let steps: Vec<(&str, &str)> = text
            .lines()
            .skip(3)
            .map(|line| (line.split_whitespace().nth(1).unwrap(), line.rsplit("|  ").next().unwrap()))
            .collect();
        assert_eq!(
            steps,
            [
                ("10.0", "the front door takes it, and answers 204"),
                ("6.0", "  the broker stores it"),
                ("92.0", "it waits in its lane"),
                ("100.0", "a try that came to nothing: its batch was called back"),
                ("100.0", "it waits in its lane"),
                ("150.0", "it crosses the link, in a batch of 7"),
                ("100.0", "the batch-receiver reads it, and tries those before it"),
                ("50.0", "the instance works on it, and answers 200"),
                ("200.0", "the outcome travels back: delivered"),
            ]
        );
        assert!(text.starts_with("the slowest activity took 800.0 ms"), "{text}");
    }

    #[test]
    fn a_clock_that_is_ahead_and_a_try_without_an_outcome_are_shown() {
        let request = span("inbox-receiver", "POST /inbox", "r", "", (100, 110));
        let publish = span("inbox-receiver", PUBLISH, "p", "r", (102, 108));
        let cut = with(span("batch-sender", PROCESS, "c", "p", (200, 300)), "fedstream.outcome", "again");
        let process = with(span("batch-sender", PROCESS, "a", "p", (400, 500)), "fedstream.outcome", "delivered");
        // The back's clock is a minute ahead.
        let of_cut = span(RECEIVER, "POST /inbox", "e", "c", (60_250, 60_260));
        let delivery = span(RECEIVER, "POST /inbox", "d", "a", (60_450, 60_460));
        let spans = [request, publish, cut, process, of_cut, delivery];
        let text = Waterfall::of_slowest(&spans).unwrap().to_string();
        assert!(text.contains("no outcome, and it is tried again: its batch was called back"), "{text}");
        assert_eq!(text.matches("the outcome travels back").count(), 1, "{text}");
    }

    #[test]
    fn without_an_outcome_there_is_nothing_to_show() {
        let publish = span("inbox-receiver", PUBLISH, "p", "r", (0, 1));
        assert!(Waterfall::of_slowest(&[publish]).is_none());
    }
}
