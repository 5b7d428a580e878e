//! What the instance gets, read from the socket by hand: exactly what the sender's request was.

mod support;

use anyhow::{Context, Result};
use bytes::Bytes;
use fedstream_lane::Seq;
use fedstream_wire::v2::{Closing, Line};
use support::{DONE, Receiver, batch, delivered, listener, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request as it came, up to the end of its body of known length.
async fn request(stream: &mut TcpStream, body_bytes: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if head.is_some_and(|at| bytes.len() >= at + 4 + body_bytes) {
            return Ok(bytes);
        }
        let read = soon("bytes of a request", stream.read_buf(&mut bytes)).await??;
        anyhow::ensure!(read > 0, "the connection ended after {:?}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test]
async fn target_headers_and_body_go_out_verbatim() -> Result<()> {
    let (instance, address) = listener().await?;
    let receiver = Receiver::start(address, &[]).await?;
    let gate = receiver.gate().await?;

    let targets = [
        "/a/../inbox",
        "/users/%40bob/inbox",
        "/inbox?shared=1",
        "/u/o'b\"{}/inbox?x='{}|&y=%zz",
        "//inbox",
        "/u/\u{fc}/inbox",
    ];
    let mut post = batch(Some(gate), 1, 0, &[1, 2, 3, 4, 5, 6]);
    for (item, target) in post.items.iter_mut().zip(targets) {
        item.target = target.into();
        item.body = Bytes::from_static(b"{\"a\" : \"\xc3\xbc\"}\n\x00");
        item.http = vec![
            ("user-agent".into(), Bytes::from_static(b"Lemmy/0.19; +https://a.example")),
            ("host".into(), Bytes::from_static(b"B.Example:443")),
            ("x-repeated".into(), Bytes::from_static(b"1")),
            ("date".into(), Bytes::from_static(b"Wed, 25 Nov 2026 10:00:00 GMT")),
            ("x-latin1".into(), Bytes::from_static(b"caf\xe9 \xff")),
            ("x-empty".into(), Bytes::new()),
            ("x-repeated".into(), Bytes::from_static(b"2")),
        ];
    }
    post.items[5].body = Bytes::new();
    post.items[5].http.push(("x-forwarded-proto".into(), Bytes::from_static(b"http")));
    let mut reply = receiver.post(&post).await?;
    if reply.status != 200 {
        anyhow::bail!("refused: {}", reply.problem().await?);
    }

    let (mut stream, _) = soon("a connection", instance.accept()).await??;
    for (item, target) in post.items.iter().zip(targets) {
        let mut expected = format!("POST {target} HTTP/1.1\r\n").into_bytes();
        expected.extend_from_slice(
            b"user-agent: Lemmy/0.19; +https://a.example\r\nhost: B.Example:443\r\nx-repeated: 1\r\nx-repeated: 2\r\n",
        );
        expected.extend_from_slice(b"date: Wed, 25 Nov 2026 10:00:00 GMT\r\nx-latin1: caf\xe9 \xff\r\nx-empty: \r\n");
        // The sender's own word about the scheme goes before ours.
        let proto = if item.body.is_empty() { "http" } else { "https" };
        expected
            .extend_from_slice(format!("x-forwarded-proto: {proto}\r\nx-forwarded-host: B.Example:443\r\n").as_bytes());
        expected.extend_from_slice(format!("content-length: {}\r\n\r\n", item.body.len()).as_bytes());
        expected.extend_from_slice(&item.body);
        let found = request(&mut stream, item.body.len()).await?;
        assert_eq!(found.escape_ascii().to_string(), expected.escape_ascii().to_string());
        stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await?;
    }
    let lines = reply.lines().await?;
    assert_eq!(lines.last(), Some(&DONE));
    assert_eq!(lines[..6], [1, 2, 3, 4, 5, 6].map(delivered), "over one connection");
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_broken_rejection_is_no_rejection() -> Result<()> {
    let (instance, address) = listener().await?;
    let receiver = Receiver::start(address, &[]).await?;
    let gate = receiver.gate().await?;
    for answer in [
        "HTTP/1.1 301 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\nhalf",
    ] {
        let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
        let (mut stream, _) = soon("a connection", instance.accept()).await??;
        request(&mut stream, 1).await?;
        stream.write_all(answer.as_bytes()).await?;
        drop(stream);
        let line = reply.line().await?.context("a closing line")?;
        assert!(matches!(line, Line::End(Closing::Retry { status: Some(301 | 400), .. })), "{line:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_accepted_activity_is_delivered_even_if_the_rest_of_the_answer_is_lost() -> Result<()> {
    let (instance, address) = listener().await?;
    let receiver = Receiver::start(address, &[]).await?;
    let gate = receiver.gate().await?;
    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    let (mut stream, _) = soon("a connection", instance.accept()).await??;
    request(&mut stream, 1).await?;
    stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 9\r\n\r\nhalf").await?;
    drop(stream);
    assert_eq!(reply.lines().await?, [delivered(1), DONE]);
    Ok(())
}

#[tokio::test]
async fn a_retry_is_known_from_the_head_of_the_answer_even_if_its_body_never_comes() -> Result<()> {
    let (instance, address) = listener().await?;
    let receiver = Receiver::start(address, &[]).await?;
    let gate = receiver.gate().await?;
    for hangs in [false, true] {
        let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
        let (mut stream, _) = soon("a connection", instance.accept()).await??;
        request(&mut stream, 1).await?;
        stream.write_all(b"HTTP/1.1 503 Down\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\nhalf").await?;
        let _open = hangs.then_some(stream);
        let cause = "the instance answered 503".to_owned();
        let retry = Closing::Retry { seq: Seq(1), status: Some(503), retry_after_s: Some(7), alive: false, cause };
        assert_eq!(soon("the end of the batch", reply.lines()).await??, [Line::End(retry)], "hangs: {hangs}");
    }
    Ok(())
}

#[tokio::test]
async fn an_endless_answer_is_read_to_its_limit_only() -> Result<()> {
    let (instance, address) = listener().await?;
    let receiver = Receiver::start(address, &[]).await?;
    let gate = receiver.gate().await?;
    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    let (mut stream, _) = soon("a connection", instance.accept()).await??;
    request(&mut stream, 1).await?;
    stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await?;
    soon("the receiver to hang up", async { while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {} }).await?;
    let lines = reply.lines().await?;
    assert!(
        matches!(&lines[..], [Line::Outcome(_, answer), _] if answer.body.as_deref().map(str::len) == Some(4096)),
        "{lines:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_v1_activity_goes_out_as_its_front_door_got_it() -> Result<()> {
    let (instance, address) = listener().await?;
    let receiver = Receiver::start(address, &[]).await?;
    // The body is `{"id":"` + C3 28 FF 00; `\udce9` is how Python writes the byte E9.
    let json = r#"[{"time":"2024-06-30T23:47:56+02:00","activity_id":"1","host":"b.example","path":"/u/bob b/inbox","unknown":null,
        "headers":[["User-Agent","Lemmy/0.19"],["HOST","B.Example:443"],["X-Repeated","1"],["Connection","close"],["Transfer-Encoding","chunked"],
        ["Date","Wed, 25 Nov 2026 10:00:00 GMT"],["x-Latin1","caf\udce9"],["x-text","caf\u00e9"],["x-REPEATED","2"],["X-Forwarded-Proto","http"]],
        "b64_body":"eyJpZCI6IsMo/wA="}]"#;
    let mut post = receiver.request(json);
    post.headers_mut().insert("content-type", "application/json".parse()?);
    let mut expected = b"POST /u/bob%20b/inbox HTTP/1.1\r\nuser-agent: Lemmy/0.19\r\nhost: B.Example:443\r\n".to_vec();
    expected.extend_from_slice(b"x-repeated: 1\r\nx-repeated: 2\r\ndate: Wed, 25 Nov 2026 10:00:00 GMT\r\n");
    expected.extend_from_slice(b"x-latin1: caf\xe9\r\nx-text: caf\xc3\xa9\r\nx-forwarded-proto: http\r\n");
    expected
        .extend_from_slice(b"x-forwarded-host: B.Example:443\r\ncontent-length: 11\r\n\r\n{\"id\":\"\xc3\x28\xff\x00");
    let at_instance = async {
        let (mut stream, _) = soon("a connection", instance.accept()).await??;
        let found = request(&mut stream, 11).await?;
        assert_eq!(found.escape_ascii().to_string(), expected.escape_ascii().to_string());
        stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await?;
        anyhow::Ok(())
    };
    let (reply, at_instance) = tokio::join!(receiver.send(post), at_instance);
    at_instance?;
    let answer: serde_json::Value = serde_json::from_slice(&reply?.bytes().await?)?;
    assert_eq!((&answer[0]["status"], &answer[0]["activity_id"]), (&202.into(), &"1".into()));
    Ok(())
}
