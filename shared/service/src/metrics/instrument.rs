//! Instruments: a definition, and what counts or measures by it. They are statics, so a call anywhere is one line.
//!
//! Labels are given as slices that the caller keeps: a lane's are made once and counted with a thousand times.

use std::sync::OnceLock;

use opentelemetry::KeyValue;
use opentelemetry::metrics;

use super::definition::{Definition, Kind, Label};
use super::meter;

/// Counts what happens.
#[derive(Debug)]
pub struct Counter {
    definition: Definition,
    instrument: OnceLock<metrics::Counter<u64>>,
}

/// Shows what is, when somebody looks.
#[derive(Debug)]
pub struct Gauge {
    definition: Definition,
}

/// Measures.
#[derive(Debug)]
pub struct Histogram {
    definition: Definition,
    instrument: OnceLock<metrics::Histogram<f64>>,
}

/// Where a [`Gauge`]'s values go when somebody looks.
pub struct Observed<'a> {
    definition: &'a Definition,
    observer: &'a dyn metrics::AsyncInstrument<f64>,
}

/// Definitions are made in `static` tables, hence `const`.
macro_rules! described {
    ($instrument:ident) => {
        impl $instrument {
            /// Tells it apart by these.
            #[must_use]
            pub const fn by(mut self, labels: &'static [Label]) -> Self {
                self.definition.labels = labels;
                self
            }

            /// Which services have it.
            #[must_use]
            pub const fn of(mut self, services: &'static [&'static str]) -> Self {
                self.definition.services = services;
                self
            }

            /// What it is.
            pub const fn definition(&self) -> &Definition {
                &self.definition
            }
        }
    };
}

described!(Counter);
described!(Gauge);
described!(Histogram);

const fn define(name: &'static str, kind: Kind, unit: &'static str, description: &'static str) -> Definition {
    Definition { name, kind, unit, description, labels: &[], services: &[] }
}

impl Counter {
    /// A counter of nothing yet.
    pub const fn new(name: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self { definition: define(name, Kind::Counter, unit, description), instrument: OnceLock::new() }
    }

    /// Counts `more`. With 0 the series is there from now on: what grows from 0 is seen to grow.
    pub fn add(&self, more: u64, labels: &[KeyValue]) {
        debug_assert!(self.definition.allows(labels), "{}: {labels:?}", self.definition.name);
        let Definition { name, unit, description, .. } = self.definition;
        self.instrument
            .get_or_init(|| meter().u64_counter(name).with_unit(unit).with_description(description).build())
            .add(more, labels);
    }
}

impl Gauge {
    /// A gauge that nobody observes yet.
    pub const fn new(name: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self { definition: define(name, Kind::Gauge, unit, description) }
    }

    /// From now on `look` is called whenever somebody wants to know. It is short, and waits for nothing.
    pub fn observe(&'static self, look: impl Fn(&Observed<'_>) + Send + Sync + 'static) {
        let Definition { name, unit, description, .. } = self.definition;
        // The handle that it gives is of no use: the SDK keeps the callback.
        meter()
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| look(&Observed { definition: &self.definition, observer }))
            .build();
    }
}

impl Observed<'_> {
    /// It is this now.
    pub fn is(&self, value: f64, labels: &[KeyValue]) {
        debug_assert!(self.definition.allows(labels), "{}: {labels:?}", self.definition.name);
        self.observer.observe(value, labels);
    }
}

impl Histogram {
    /// A histogram of nothing yet, with these upper bounds of its buckets.
    pub const fn new(
        name: &'static str,
        unit: &'static str,
        bounds: &'static [f64],
        description: &'static str,
    ) -> Self {
        Self { definition: define(name, Kind::Histogram(bounds), unit, description), instrument: OnceLock::new() }
    }

    /// Takes a measurement.
    pub fn record(&self, value: f64, labels: &[KeyValue]) {
        debug_assert!(self.definition.allows(labels), "{}: {labels:?}", self.definition.name);
        self.instrument.get_or_init(|| self.build()).record(value, labels);
    }

    fn build(&self) -> metrics::Histogram<f64> {
        let Definition { name, unit, description, kind, .. } = self.definition;
        let bounds = match kind {
            Kind::Histogram(bounds) => bounds.to_vec(),
            Kind::Counter | Kind::Gauge => Vec::new(),
        };
        meter().f64_histogram(name).with_unit(unit).with_description(description).with_boundaries(bounds).build()
    }
}
