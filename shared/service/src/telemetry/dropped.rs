//! Spans that reach nobody, counted: the SDK's own queue drops without a number that anybody could ask for.
//!
//! | reason | what happened |
//! |---|---|
//! | `queue_full` | more ended than OTEL_BSP_MAX_QUEUE_SIZE wait: the collector is slow, or hangs |
//! | `export_failed` | the collector was not there, refused, or did not answer in time |
//! | `rate_limited` | one more always-sampled span than the sampler's rate allows |
//!
//! Trouble is told once when it begins and once when it is over, by the thread that exports: a span that ends on the way
//! of an activity only counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};

use crate::metrics::table::TELEMETRY_DROPPED;

/// Reasons, as the metric names them.
pub const QUEUE_FULL: &str = "queue_full";
/// The collector did not take them.
pub const EXPORT_FAILED: &str = "export_failed";
/// The sampler's bound on what it keeps beside the standard one.
pub const RATE_LIMITED: &str = "rate_limited";

/// The SDK's own default for OTEL_BSP_MAX_QUEUE_SIZE.
pub const QUEUE_DEFAULT: usize = 2048;

/// Exports have to work for so long before the trouble counts as over: a queue that is full now and then is one trouble,
/// not one a second.
const CALM: Duration = Duration::from_secs(10);

/// Counts spans that reach nobody.
pub fn traces(reason: &'static str, count: usize) {
    let labels = [KeyValue::new("signal", "traces"), KeyValue::new("reason", reason)];
    TELEMETRY_DROPPED.add(u64::try_from(count).unwrap_or(u64::MAX), &labels);
}

/// The SDK's batch processor behind a bound of our own, which counts what it turns away.
#[derive(Debug)]
pub struct Queue {
    processor: BatchSpanProcessor,
    waiting: Arc<Waiting>,
    most: usize,
}

/// What waits, and what found no room.
#[derive(Debug, Default)]
struct Waiting {
    now: AtomicUsize,
    turned_away: AtomicU64,
}

impl Queue {
    /// At most `most` spans wait for `exporter`.
    #[must_use]
    pub fn before<E: SpanExporter + 'static>(exporter: E, most: usize) -> Self {
        let waiting = Arc::new(Waiting::default());
        let exporter = Counted { exporter, waiting: Arc::clone(&waiting), trouble: Mutex::default() };
        // A span leaves our count when it is exported, later than it leaves the SDK's queue: that one is never full.
        let batches = BatchConfigBuilder::default().with_max_queue_size(most).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        Self { processor, waiting, most }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.now.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.waiting.now.fetch_sub(1, Ordering::Relaxed);
            self.waiting.turned_away.fetch_add(1, Ordering::Relaxed);
            traces(QUEUE_FULL, 1);
            return;
        }
        self.processor.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

/// An exporter whose failures are counted, and told once.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    waiting: Arc<Waiting>,
    trouble: Mutex<Trouble>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.now.fetch_sub(count, Ordering::Relaxed);
        let exported = self.exporter.export(batch).await;
        let turned_away = self.waiting.turned_away.swap(0, Ordering::Relaxed);
        let cause = match &exported {
            Err(error) => {
                traces(EXPORT_FAILED, count);
                Some(error.to_string())
            }
            Ok(()) if turned_away > 0 => Some("more spans end than the collector takes".to_owned()),
            Ok(()) => None,
        };
        let lost = turned_away + if exported.is_err() { u64::try_from(count).unwrap_or(u64::MAX) } else { 0 };
        let news = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).hear(cause, lost, Instant::now());
        match news {
            None => {}
            Some(News::Began(cause)) => {
                tracing::warn!(cause, "spans are lost; activities go on, and fedstream.telemetry.dropped counts them");
            }
            Some(News::Over { lost, lasted }) => {
                tracing::info!(lost, lasted_s = lasted.as_secs(), "spans are exported again");
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Trouble with a collector, while it lasts.
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Lasting>,
}

#[derive(Debug, Clone, Copy)]
struct Lasting {
    began: Instant,
    last: Instant,
    lost: u64,
}

/// What an operator hears.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Began(String),
    Over { lost: u64, lasted: Duration },
}

impl Trouble {
    /// An export ended: with a cause where something was lost.
    fn hear(&mut self, cause: Option<String>, lost: u64, now: Instant) -> Option<News> {
        match (cause, &mut self.since) {
            (Some(cause), None) => {
                self.since = Some(Lasting { began: now, last: now, lost });
                Some(News::Began(cause))
            }
            (Some(_), Some(lasting)) => {
                (lasting.last, lasting.lost) = (now, lasting.lost + lost);
                None
            }
            (None, Some(lasting)) if now.saturating_duration_since(lasting.last) >= CALM => {
                let news =
                    News::Over { lost: lasting.lost, lasted: lasting.last.saturating_duration_since(lasting.began) };
                self.since = None;
                Some(news)
            }
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    /// Says how many came, and answers when it is told how.
    #[derive(Debug)]
    struct Slow {
        came: mpsc::Sender<usize>,
        answers: Mutex<mpsc::Receiver<OTelSdkResult>>,
    }

    impl SpanExporter for Slow {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.came.send(batch.len()).unwrap();
            self.answers.lock().unwrap().recv().unwrap_or(Ok(()))
        }
    }

    #[test]
    fn a_collector_that_hangs_costs_what_goes_beyond_the_queue_and_no_time() {
        let ((came, arrived), (answer, answers)) = (mpsc::channel(), mpsc::channel());
        let queue = Queue::before(Slow { came, answers: Mutex::new(answers) }, 4);
        let waiting = Arc::clone(&queue.waiting);
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        let tracer = provider.tracer("test");
        let end = |count: usize| (0..count).for_each(|_| tracer.start("span").end());
        end(1);
        let flushing = provider.clone();
        let flush = std::thread::spawn(move || flushing.force_flush());
        assert_eq!(arrived.recv().unwrap(), 1, "one is on its way, and stays there");
        end(10);
        assert_eq!(waiting.now.load(Ordering::Relaxed), 4);
        assert_eq!(waiting.turned_away.load(Ordering::Relaxed), 6);
        answer.send(Err(OTelSdkError::InternalFailure("no answer".into()))).unwrap();
        drop(answer);
        assert!(flush.join().unwrap().is_err());
        provider.shutdown().unwrap();
        assert_eq!(arrived.iter().sum::<usize>(), 4, "what had room arrives when it can");
    }

    #[test]
    fn trouble_is_told_when_it_begins_and_when_it_is_over() {
        let mut trouble = Trouble::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let why = || Some("away".to_owned());
        assert_eq!(trouble.hear(None, 0, at(0)), None);
        assert_eq!(trouble.hear(why(), 3, at(1)), Some(News::Began("away".into())));
        assert_eq!(trouble.hear(why(), 4, at(2)), None);
        assert_eq!(trouble.hear(None, 0, at(3)), None, "not over yet");
        assert_eq!(trouble.hear(why(), 1, at(8)), None, "the same trouble");
        assert_eq!(trouble.hear(None, 0, at(17)), None);
        let over = News::Over { lost: 8, lasted: Duration::from_secs(7) };
        assert_eq!(trouble.hear(None, 0, at(18)), Some(over));
        assert_eq!(trouble.hear(why(), 1, at(19)), Some(News::Began("away".into())));
    }
}
