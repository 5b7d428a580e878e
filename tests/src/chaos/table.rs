//! How long the lanes took to move again, by kind of fault.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::Fault;

#[derive(Clone, Debug, Default)]
struct Row {
    count: usize,
    recoveries: Vec<Duration>,
}

/// One row for each kind. A recovery from two faults at once has a row of its own.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<String, Row>);

/// The row of steps with two faults.
const TOGETHER: &str = "(two at once)";

impl Table {
    /// A step is over: all lanes moved again so long after the end of its last fault.
    pub fn enter(&mut self, faults: &[Fault], recovered_in: Duration) {
        for fault in faults {
            self.0.entry(fault.kind()).or_default().count += 1;
        }
        let kind = match faults {
            [fault] => fault.kind(),
            _ => TOGETHER.to_owned(),
        };
        let row = self.0.entry(kind).or_default();
        row.recoveries.push(recovered_in);
        if faults.len() > 1 {
            row.count += 1;
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<36} {:>5}  {:>9} {:>9}", "fault", "count", "p50", "max")?;
        for (kind, row) in &self.0 {
            let mut recoveries = row.recoveries.clone();
            recoveries.sort();
            let shown = |at: Option<&Duration>| at.map_or("-".to_owned(), |d| format!("{:.1} s", d.as_secs_f64()));
            let (p50, max) = (shown(recoveries.get(recoveries.len() / 2)), shown(recoveries.last()));
            writeln!(f, "{kind:<36} {:>5}  {p50:>9} {max:>9}", row.count)?;
        }
        Ok(())
    }
}
