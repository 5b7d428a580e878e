//! Log lines: for people on a terminal, JSON elsewhere; with the ids of the trace that they belong to, so that a line
//! leads to its trace and a trace to its lines.
//!
//! A line says itself what it is about: lane, sequence, id. What its spans know besides (method, path, the whole list) is in
//! it from LOG_LEVEL=debug on, for whoever looks closer. At info nearly every activity ends without a line, and the texts of
//! its spans, written for nobody, would be a tenth of the processor time of a service.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::common::TelemetryConfig;
use crate::config::{ConfigError, NotA};

/// Targets of the OpenTelemetry libraries begin like this. What matters of their troubles we say ourselves, once: see
/// [`dropped`](super::dropped).
const OPENTELEMETRY: &str = "opentelemetry";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim() {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(NotA("pretty or json")),
        }
    }
}

/// What is logged, in RUST_LOG's syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        EnvFilter::builder()
            .parse(text)
            .map(|_| Self(text.to_owned()))
            .map_err(|_| NotA("a log level (error, warn, info, debug, trace) or a filter in RUST_LOG's syntax"))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The layer that writes them to stdout.
pub(super) fn layer<S>(config: &TelemetryConfig) -> Result<impl Layer<S>, ConfigError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let terminal = std::io::stdout().is_terminal();
    let lines = match config.log_format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json }) {
        // Colours are for eyes: in a file they split `name=value`, and nobody can search for it.
        LogFormat::Pretty => tracing_subscriber::fmt::layer()
            .with_ansi(terminal)
            .map_event_format(|format| WithTrace::words(format.with_ansi(terminal)))
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .map_event_format(WithTrace::json)
            .boxed(),
    };
    let text = &config.log_level.0;
    let filter = EnvFilter::builder().parse(text).map_err(|error| ConfigError::new("LOG_LEVEL", error))?;
    let libraries_too = text.contains(OPENTELEMETRY);
    let spans_too = filter.max_level_hint().is_none_or(|most| most >= LevelFilter::DEBUG);
    let ours = filter_fn(move |metadata| {
        (spans_too || metadata.is_event()) && (libraries_too || !metadata.target().starts_with(OPENTELEMETRY))
    });
    Ok(lines.with_filter(filter.and(ours)))
}

/// A format of lines, and the ids of the current trace and span at the end of each.
struct WithTrace<F> {
    format: F,
    closing: Closing,
}

/// How a line ends, and how ids are put before its end.
#[derive(Clone, Copy)]
enum Closing {
    /// `name=value` at the end.
    Words,
    /// Before the last brace.
    Json,
}

impl<F> WithTrace<F> {
    fn words(format: F) -> Self {
        Self { format, closing: Closing::Words }
    }

    fn json(format: F) -> Self {
        Self { format, closing: Closing::Json }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some((trace, span)) = current() else {
            return self.format.format_event(ctx, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(ctx, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        match (self.closing, line.strip_suffix('}')) {
            (Closing::Json, Some(open)) => {
                writeln!(writer, "{open},\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}")
            }
            _ => writeln!(writer, "{line} trace_id={trace} span_id={span}"),
        }
    }
}

/// The trace in force on this thread. Not the subscriber's current span: LOG_LEVEL=warn hides that from a line, and a
/// warning needs its trace most.
fn current() -> Option<(TraceId, SpanId)> {
    Context::map_current(|context| {
        let span = context.span();
        let ids = span.span_context();
        ids.is_valid().then(|| (ids.trace_id(), ids.span_id()))
    })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::context;

    /// Where the lines of a test go.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `told` writes through the layers of a service whose traces are not sampled.
    fn lines(format: LogFormat, told: impl FnOnce()) -> String {
        let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let written = Lines::default();
        let to = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || to.clone());
        let layer = match format {
            LogFormat::Pretty => layer.map_event_format(WithTrace::words).boxed(),
            LogFormat::Json => layer.json().flatten_event(true).map_event_format(WithTrace::json).boxed(),
        };
        let subscriber = tracing::Dispatch::new(tracing_subscriber::registry().with(traces).with(layer));
        // A second one, so that no other test's thread decides for all that nobody listens to a span.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::dispatcher::with_default(&subscriber, told);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_carries_the_ids_of_its_trace_also_of_one_that_is_not_sampled() {
        for format in [LogFormat::Pretty, LogFormat::Json] {
            let mut traceparent = String::new();
            let lines = lines(format, || {
                let span = tracing::info_span!("work");
                traceparent = context::of(&span).unwrap().traceparent;
                span.in_scope(|| tracing::warn!(seq = 7, "said"));
            });
            let [_, trace, span, flags] = traceparent.split('-').collect::<Vec<_>>()[..] else { panic!("four parts") };
            assert_eq!(flags, "00");
            match format {
                LogFormat::Pretty => {
                    assert!(lines.ends_with(&format!(" trace_id={trace} span_id={span}\n")), "{lines}")
                }
                LogFormat::Json => {
                    let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
                    assert_eq!((&line["trace_id"], &line["span_id"]), (&trace.into(), &span.into()));
                    assert_eq!((&line["message"], &line["seq"]), (&"said".into(), &7.into()));
                }
            }
        }
    }

    #[test]
    fn a_line_of_no_trace_is_as_it_was() {
        let json = lines(LogFormat::Json, || tracing::info!("said"));
        assert!(!json.contains("trace_id") && json.ends_with("}\n"), "{json}");
        assert!(!lines(LogFormat::Pretty, || tracing::info!("said")).contains("trace_id"));
    }

    #[test]
    fn a_log_filter_is_checked_before_it_is_used() {
        assert!("info,async_nats=warn".parse::<LogFilter>().is_ok());
        assert!("info,inbox_receiver=loud".parse::<LogFilter>().is_err());
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
