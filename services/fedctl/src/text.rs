//! Plain text for people: tables, ages, and words of strangers that must not move the cursor. No colours.

use std::fmt::Display;
use std::io::Write;

use time::OffsetDateTime;

/// A line on stdout. Whoever closed the pipe (`| head`) has seen enough, and what is being done goes on.
pub fn say(line: impl Display) {
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

/// Rows under a heading, in columns as wide as they need to be.
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// An empty one.
    pub fn new(heading: &[&str]) -> Self {
        Self(vec![heading.iter().map(|&word| word.to_owned()).collect()])
    }

    /// One more row; an empty cell is shown as `-`.
    pub fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect());
    }

    /// Whether it has no row but the heading.
    pub fn is_empty(&self) -> bool {
        self.0.len() < 2
    }

    /// Prints it.
    pub fn print(&self) {
        let columns = self.0.first().map_or(0, Vec::len);
        let width =
            |column: usize| self.0.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.0 {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            say(cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

/// How long ago, in two units at most.
pub fn age(since: OffsetDateTime) -> String {
    let seconds = age_s(since);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// How long ago, seconds; 0 for what a broker's clock says is still to come.
pub fn age_s(since: OffsetDateTime) -> u64 {
    u64::try_from((OffsetDateTime::now_utc() - since).whole_seconds()).unwrap_or(0)
}

/// A stranger's text on one line, without the characters that command a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().flat_map(shown).collect()
}

/// As [`one_line`], with its line breaks and tabs.
pub fn lines(text: &str) -> String {
    text.chars().flat_map(|c| if matches!(c, '\n' | '\t') { vec![c] } else { shown(c) }).collect()
}

/// The beginning of a text, on one line.
pub fn beginning(text: &str, chars: usize) -> String {
    let mut start: String = text.chars().take(chars).flat_map(shown).collect();
    if text.chars().nth(chars).is_some() {
        start.push('…');
    }
    start
}

/// Controls, and those that turn the direction of writing round.
fn shown(c: char) -> Vec<char> {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || turns { c.escape_default().collect() } else { vec![c] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_commands_no_terminal() {
        assert_eq!(one_line("a\u{1b}[2J\r\nb\u{202e}ż"), "a\\u{1b}[2J\\r\\nb\\u{202e}ż");
        assert_eq!(lines("a\n\tb\u{7}"), "a\n\tb\\u{7}");
        assert_eq!(beginning("żółw", 2), "żó…");
        assert_eq!(beginning("żó", 2), "żó");
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        for (seconds, text) in [(5, "5s"), (65, "1m 5s"), (3_700, "1h 1m"), (90_000, "1d 1h"), (-5, "0s")] {
            assert_eq!(age(OffsetDateTime::now_utc() - time::Duration::seconds(seconds)), text);
        }
    }
}
