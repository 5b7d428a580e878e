//! Which traces are exported: what OTEL_TRACES_SAMPLER says, and beside it every span that says of itself that it must
//! be seen: an activity that was refused, rejected or parked.
//!
//! Such a span has the trace id of its activity whether the rest was sampled or not, since an unsampled context is passed
//! on as well (`traceparent` with the flag 00). It is a span of its own, opened when the bad news is known: whether a
//! whole trace is worth keeping can't be said at its beginning.
//!
//! A batch is the root of a trace of its own, beside those of its activities. It is kept where the trace of one of them is:
//! who follows that one finds the crossing, too.
//!
//! A flood of refusals costs a bounded number of such spans: [`BURST`], then [`PER_SECOND`]. What goes beyond is counted
//! as dropped. Traces that the standard sampler keeps are not limited: that is the operator's choice.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::dropped;
use crate::attributes::ALWAYS_SAMPLED;
use crate::config::{ConfigError, NotA};

/// Always-sampled spans at once: a tenth of the export queue, so that a flood of refusals leaves room for traces.
const BURST: f64 = 200.0;

/// And then each second: at the default export delay of 5 s half of the burst. An operator reads the first ones; how many
/// there were is in a metric.
const PER_SECOND: f64 = 20.0;

/// A name of OTEL_TRACES_SAMPLER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplerName {
    /// `always_on`
    AlwaysOn,
    /// `always_off`
    AlwaysOff,
    /// `traceidratio`
    TraceIdRatio,
    /// `parentbased_always_on`
    ParentBasedAlwaysOn,
    /// `parentbased_always_off`
    ParentBasedAlwaysOff,
    /// `parentbased_traceidratio`
    ParentBasedTraceIdRatio,
}

impl FromStr for SamplerName {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim() {
            "always_on" => Ok(Self::AlwaysOn),
            "always_off" => Ok(Self::AlwaysOff),
            "traceidratio" => Ok(Self::TraceIdRatio),
            "parentbased_always_on" => Ok(Self::ParentBasedAlwaysOn),
            "parentbased_always_off" => Ok(Self::ParentBasedAlwaysOff),
            "parentbased_traceidratio" => Ok(Self::ParentBasedTraceIdRatio),
            // jaeger_remote and xray ask somebody else; said so here, not found out from traces that are missing.
            _ => Err(NotA(
                "always_on, always_off or traceidratio, alone or behind parentbased_ (others are not supported)",
            )),
        }
    }
}

/// A share, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl FromStr for Share {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let share = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(Self).ok_or(NotA("a number from 0 to 1"))
    }
}

/// The sampler that the standard variables name; without any, all that no parent has decided.
pub(super) fn standard(name: Option<SamplerName>, arg: Option<Share>) -> Result<Sampler, ConfigError> {
    use SamplerName as N;
    let share = arg.map_or(1.0, |share| share.0); // as the specification has it
    Ok(match name.unwrap_or(N::ParentBasedAlwaysOn) {
        N::AlwaysOn => Sampler::AlwaysOn,
        N::AlwaysOff => Sampler::AlwaysOff,
        N::TraceIdRatio => Sampler::TraceIdRatioBased(share),
        N::ParentBasedAlwaysOn => Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
        N::ParentBasedAlwaysOff => Sampler::ParentBased(Box::new(Sampler::AlwaysOff)),
        N::ParentBasedTraceIdRatio => Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))),
    })
}

/// A sampler, and beside what it keeps each span with [`ALWAYS_SAMPLED`], and each root that is linked to a kept span of this
/// process.
#[derive(Debug, Clone)]
pub struct Always {
    standard: Sampler,
    tokens: Arc<Tokens>,
}

impl Always {
    /// Beside the standard one.
    #[must_use]
    pub fn beside(standard: Sampler) -> Self {
        Self { standard, tokens: Arc::new(Tokens::full(Instant::now())) }
    }
}

impl ShouldSample for Always {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.standard.should_sample(parent, trace_id, name, kind, attributes, links);
        if result.decision == SamplingDecision::RecordAndSample {
            return result;
        }
        let is_root = parent.is_none_or(|parent| !parent.span().span_context().is_valid());
        if is_root && leads_to_a_kept_span(links) {
            result.decision = SamplingDecision::RecordAndSample;
        } else if must_be_seen(attributes) {
            if self.tokens.take(Instant::now()) {
                result.decision = SamplingDecision::RecordAndSample;
            } else {
                dropped::traces(dropped::RATE_LIMITED, 1);
            }
        }
        result
    }
}

/// A span of this process: what a stranger sent as his trace says nothing about ours.
fn leads_to_a_kept_span(links: &[Link]) -> bool {
    links.iter().map(|link| &link.span_context).any(|linked| linked.is_sampled() && !linked.is_remote())
}

fn must_be_seen(attributes: &[KeyValue]) -> bool {
    attributes.iter().any(|pair| pair.key.as_str() == ALWAYS_SAMPLED && pair.value == Value::Bool(true))
}

/// A token bucket.
#[derive(Debug)]
struct Tokens(Mutex<(f64, Instant)>);

impl Tokens {
    fn full(now: Instant) -> Self {
        Self(Mutex::new((BURST, now)))
    }

    fn take(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = *state;
        let left = (left + now.saturating_duration_since(at).as_secs_f64() * PER_SECOND).min(BURST);
        let enough = left >= 1.0;
        *state = (if enough { left - 1.0 } else { left }, now.max(at));
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};

    use super::*;

    fn decides(sampler: &Always, parent_sampled: Option<bool>, attributes: &[KeyValue]) -> bool {
        let parent = parent_sampled.map(|sampled| {
            let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
            let context = SpanContext::new(TraceId::from(1), SpanId::from(1), flags, true, TraceState::NONE);
            Context::new().with_remote_span_context(context)
        });
        let kind = SpanKind::Internal;
        let result = sampler.should_sample(parent.as_ref(), TraceId::from(u128::MAX), "span", &kind, attributes, &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn a_root_is_kept_where_a_kept_span_of_this_process_is_linked() {
        let sampler = Always::beside(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
        let linked = |flags, is_remote| {
            Link::with_context(SpanContext::new(TraceId::from(2), SpanId::from(2), flags, is_remote, TraceState::NONE))
        };
        let kept = |parent: Option<&Context>, links: &[Link]| {
            let result = sampler.should_sample(parent, TraceId::from(1), "POST /batch", &SpanKind::Client, &[], links);
            result.decision == SamplingDecision::RecordAndSample
        };
        let (yes, no) = (TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED);
        assert!(kept(None, &[linked(no, false), linked(yes, false)]));
        assert!(!kept(None, &[linked(no, false)]) && !kept(None, &[]));
        assert!(!kept(None, &[linked(yes, true)]), "a stranger does not choose what is kept");
        let parent = SpanContext::new(TraceId::from(1), SpanId::from(1), no, true, TraceState::NONE);
        let parent = Context::new().with_remote_span_context(parent);
        assert!(!kept(Some(&parent), &[linked(yes, false)]), "whoever began it has decided");
    }

    #[test]
    fn what_must_be_seen_is_sampled_whatever_the_standard_sampler_says() {
        let bad_news = [KeyValue::new(ALWAYS_SAMPLED, true)];
        for (name, share) in [
            ("always_off", None),
            ("traceidratio", Some("0")),
            ("parentbased_always_off", None),
            ("parentbased_traceidratio", Some("0")),
            ("parentbased_always_on", None),
        ] {
            let share = share.map(|share: &str| share.parse().unwrap());
            let sampler = Always::beside(standard(Some(name.parse().unwrap()), share).unwrap());
            assert!(decides(&sampler, Some(false), &bad_news), "{name}");
            assert!(!decides(&sampler, Some(false), &[]), "{name}");
            assert!(!decides(&sampler, Some(false), &[KeyValue::new(ALWAYS_SAMPLED, false)]), "{name}");
        }
    }

    #[test]
    fn the_names_mean_what_the_specification_says() {
        let kept = |name: Option<&str>, share: Option<&str>, parent| {
            let name = name.map(|name| name.parse().unwrap());
            let sampler = standard(name, share.map(|share| share.parse().unwrap())).unwrap();
            decides(&Always::beside(sampler), parent, &[])
        };
        assert!(kept(None, None, None) && !kept(None, None, Some(false)), "all that no parent has decided");
        assert!(kept(Some("always_on"), None, Some(false)));
        assert!(!kept(Some("always_off"), None, Some(true)));
        assert!(kept(Some("traceidratio"), None, None), "without an argument it is all");
        assert!(!kept(Some("traceidratio"), Some("0.5"), Some(true)), "this trace id is above any share");
        assert!(kept(Some("parentbased_traceidratio"), Some("0"), Some(true)));
        assert!(kept(Some("parentbased_always_off"), None, Some(true)));
        assert!(!kept(Some("parentbased_always_off"), None, None));
    }

    #[test]
    fn what_is_not_supported_or_no_share_is_refused_in_words() {
        for name in ["jaeger_remote", "parentbased_jaeger_remote", "xray", "sometimes", ""] {
            assert!(name.parse::<SamplerName>().is_err(), "{name}");
        }
        for share in ["-0.1", "1.1", "NaN", "inf", "1%", ""] {
            assert!(share.parse::<Share>().is_err(), "{share}");
        }
        assert_eq!("0.01".parse::<Share>(), Ok(Share(0.01)));
    }

    #[test]
    fn a_flood_is_bounded_and_passes() {
        let start = Instant::now();
        let tokens = Tokens::full(start);
        let taken = (0..10_000).filter(|_| tokens.take(start)).count();
        assert_eq!(taken, 200);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| tokens.take(later)).count(), 20);
        assert!(!tokens.take(start), "a clock that stands still gives nothing");
        assert_eq!((0..1000).filter(|_| tokens.take(later + Duration::from_secs(3600))).count(), 200);
    }
}
