//! `parked`: what left its lane undelivered, as a list or one copy whole.
//!
//! What a sender used to prove who it is stays hidden unless asked for: a signature is good for an hour, and a terminal's
//! scrollback or a pasted bug report lasts longer.

use fedstream_jetstream::parked::{self, Errand, Error, Filter, Page, Parked, ParkedMessage, header};
use fedstream_jetstream::{Broker, definitions};
use fedstream_lane::Seq;
use fedstream_service::cli::Failure;
use fedstream_wire::stored::header as stored;
use serde_json::{Value, json};

use crate::broker;
use crate::command_line::ParkedList;
use crate::text::{Table, beginning, lines, one_line, say};

/// So much of an answer fits beside the rest; `parked show` has all that is kept of it.
const ANSWER_CHARS: usize = 60;

/// HTTP headers that prove something to whoever has them.
const HIDDEN: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "signature"];

/// Lists copies.
pub async fn list(which: ParkedList) -> Result<(), Failure> {
    let broker = broker::connect(&[definitions::parked()]).await?;
    let filter = which.those.of(which.lane);
    let (copies, next) = collect(&broker, &filter, which.from, which.limit).await?;
    if which.json {
        let rows: Vec<Value> = copies.iter().map(row_json).collect();
        say(format_args!("{:#}", json!({ "parked": rows, "next": next.map(|seq| seq.0) })));
        return Ok(());
    }
    let mut table = Table::new(&["SEQUENCE", "LANE", "REASON", "ATTEMPTS", "STATUS", "PARKED", "ACTIVITY", "ANSWER"]);
    for copy in &copies {
        table.row(vec![
            copy.seq.to_string(),
            copy.lane.to_string(),
            reason(copy),
            copy.attempts().map(|count| count.to_string()).unwrap_or_default(),
            copy.status().map(|status| status.to_string()).unwrap_or_default(),
            one_line(copy.parked_at()),
            one_line(copy.activity_id()),
            beginning(copy.answer().unwrap_or_default(), ANSWER_CHARS),
        ]);
    }
    if table.is_empty() {
        say("nothing is parked");
    } else {
        table.print();
    }
    if let Some(next) = next {
        say(format_args!("there may be more: --from {next}, or a higher --limit"));
    }
    Ok(())
}

/// At most `limit` copies, and where to go on.
pub async fn collect(
    broker: &Broker,
    filter: &Filter,
    from: Seq,
    limit: usize,
) -> Result<(Vec<Parked>, Option<Seq>), Failure> {
    let (mut copies, mut next) = (Vec::new(), Some(from));
    while let Some(at) = next.filter(|_| copies.len() < limit) {
        let page: Page = parked::list(broker, filter, at, limit - copies.len()).await.map_err(unreadable)?;
        copies.extend(page.copies);
        next = page.next;
    }
    Ok((copies, next))
}

/// FED_PARKED is not told.
pub fn unreadable(error: Error) -> Failure {
    Failure::unavailable(error)
}

/// The word for why it left.
pub fn reason(copy: &Parked) -> String {
    copy.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default()
}

fn row_json(copy: &Parked) -> Value {
    let header = |name| copy.headers.get(name);
    let errand = copy.errand.as_ref();
    json!({
        "sequence": copy.seq.0,
        "kind": copy.lane.kind().as_str(),
        "lane": copy.lane.to_string(),
        "reason": copy.reason.map(|reason| reason.as_str()),
        "attempts": copy.attempts(),
        "status": copy.status(),
        "answer": copy.answer(),
        "activity_id": copy.activity_id(),
        "received_at": header(stored::RECEIVED_AT),
        "deadline": header(stored::DEADLINE),
        "inbox": errand.and_then(|errand| errand.inbox.as_deref()),
        "actor": errand.and_then(|errand| errand.actor).map(|actor| actor.to_string()),
        "requested_at": header(stored::REQUESTED_AT),
        "first_attempt_at": header(header::FIRST_ATTEMPT),
        "last_attempt_at": header(header::LAST_ATTEMPT),
        "parked_at": copy.parked_at(),
        "lane_sequence": header(header::SEQUENCE),
        "body_bytes": copy.body_bytes,
    })
}

/// Prints everything of one copy.
pub async fn show(sequence: Seq, with_secrets: bool) -> Result<(), Failure> {
    let broker = broker::connect(&[definitions::parked()]).await?;
    let copy = parked::read(&broker, sequence).await.map_err(unreadable)?;
    let Some(ParkedMessage { parked, body, .. }) = copy else {
        return Err(Failure::other(format_args!("there is no copy {sequence} in FED_PARKED")));
    };
    say(format_args!("sequence {} of FED_PARKED", parked.seq));
    say(format_args!("lane     {} ({})", parked.lane, parked.lane.key()));
    say(format_args!("reason   {}", reason(&parked)));
    say("");
    for (name, value) in parked.headers.iter().filter(|(name, _)| *name != stored::HTTP) {
        say(format_args!("{}: {}", one_line(name), one_line(value)));
    }
    say("");
    match &parked.errand {
        None => {
            say(format_args!("POST {}", one_line(parked.headers.get(stored::TARGET).unwrap_or_default())));
            let http = parked.headers.get(stored::HTTP).unwrap_or_default();
            http_lines(http, with_secrets).into_iter().for_each(say);
        }
        // Signed anew each time: there is nothing of a request to keep but where it goes, and what stands in the event.
        Some(Errand { inbox, actor, .. }) => {
            say(format_args!("to     {}", inbox.as_deref().map(one_line).unwrap_or_default()));
            say(format_args!("actor  {}", actor.map(|actor| actor.to_string()).unwrap_or_default()));
        }
    }
    say("");
    match std::str::from_utf8(&body) {
        Ok(text) => say(lines(text)),
        Err(_) => say(format_args!("({} bytes that are no text)", body.len())),
    }
    Ok(())
}

/// The HTTP headers as they came, without what proves who sent them.
fn http_lines(json: &str, with_secrets: bool) -> Vec<String> {
    let Ok(pairs) = serde_json::from_str::<Vec<(String, String)>>(json) else {
        // Nobody knows what is in it.
        let hidden = || format!("({} bytes that are not read; --headers shows them)", json.len());
        return vec![if with_secrets { one_line(json) } else { hidden() }];
    };
    let line = |(name, value): (String, String)| {
        let hidden = !with_secrets && HIDDEN.contains(&name.to_ascii_lowercase().as_str());
        let value = if hidden { format!("({} bytes; --headers shows them)", value.len()) } else { one_line(&value) };
        format!("{}: {value}", one_line(&name))
    };
    pairs.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proves_who_sent_it_is_hidden_unless_asked_for() {
        let json = r#"[["host","home.test"],["Signature","s3cret"],["authorization","s3cret"],["x","a\u001b[2Jb"]]"#;
        let hidden = http_lines(json, false).join("\n");
        assert!(!hidden.contains("s3cret") && hidden.contains("Signature: (6 bytes"), "{hidden}");
        assert!(hidden.starts_with("host: home.test\n") && hidden.ends_with("x: a\\u{1b}[2Jb"), "{hidden}");
        assert_eq!(http_lines(json, true)[1], "Signature: s3cret");
    }

    #[test]
    fn what_can_not_be_read_is_hidden_whole() {
        assert_eq!(http_lines("{s3cret", false), ["(7 bytes that are not read; --headers shows them)"]);
    }
}
