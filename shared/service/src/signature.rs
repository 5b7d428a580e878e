//! What a signature says about itself: whose key, which headers it covers, from when and until when. It is not verified
//! here; a signature that lies only files its sender's activity where the destination will refuse it. Two services ask:
//! the front door for the lane and the deadline, the far side for the lane of an activity whose batch names none.
//!
//! Two kinds are in use: draft-cavage-http-signatures (`Signature: keyId="..",headers=".."`, also in `Authorization`),
//! and RFC 9421 (`Signature-Input: sig1=("@method" ..);keyid=".."`).

use http::HeaderMap;
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// What was found in the signature headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// The key's URL, usually the actor's with a fragment.
    pub key_id: Option<String>,
    /// Names of the headers that it covers, in lower case; parts that are no headers (`@method`) are left out.
    pub covered: Vec<String>,
    /// Unix seconds.
    pub created: Option<i64>,
    /// Unix seconds.
    pub expires: Option<i64>,
}

impl Signature {
    /// The request's signature; `None` if it has none. One that can't be read is one without a key.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key("signature-input") {
            return Some(Self::rfc9421(headers).unwrap_or_default());
        }
        let line = match headers.get("signature") {
            Some(line) => line.to_str().ok(),
            None => Some(authorization(headers)?),
        };
        Some(line.map(Self::cavage).unwrap_or_default())
    }

    /// Does it cover this header? Names are in lower case.
    pub fn covers(&self, name: &str) -> bool {
        self.covered.iter().any(|covered| covered == name)
    }

    /// Several signatures may be there (RFC 9421, section 4.3): the key is that of the first that names one, and what any of
    /// them covers is covered.
    fn rfc9421(headers: &HeaderMap) -> Option<Self> {
        let mut lines = Vec::new();
        for line in headers.get_all("signature-input") {
            lines.push(line.to_str().ok()?);
        }
        let dictionary: Dictionary = Parser::new(&lines.join(", ")).parse().ok()?;
        let mut found = Self::default();
        for entry in dictionary.values() {
            let ListEntry::InnerList(list) = entry else { continue };
            let names = list.items.iter().filter_map(|item| match &item.bare_item {
                BareItem::String(name) => Some(name.as_str().to_ascii_lowercase()),
                _ => None,
            });
            found.covered.extend(names.filter(|name| !name.starts_with('@')));
            let parameter =
                |wanted: &str| list.params.iter().find(|(name, _)| name.as_str() == wanted).map(|(_, value)| value);
            if let (None, Some(BareItem::String(key))) = (&found.key_id, parameter("keyid")) {
                found.key_id = Some(key.as_str().to_owned());
                found.created = parameter("created").and_then(whole_seconds);
                found.expires = parameter("expires").and_then(whole_seconds);
            }
        }
        Some(found)
    }

    fn cavage(line: &str) -> Self {
        let mut found = Self::default();
        let mut covered = None;
        for (name, value) in parameters(line) {
            match name {
                "keyId" => found.key_id = Some(value),
                "headers" => covered = Some(value),
                // Some write a number, some a quoted one, some with decimals.
                "created" => found.created = value.split('.').next().and_then(|whole| whole.parse().ok()),
                "expires" => found.expires = value.split('.').next().and_then(|whole| whole.parse().ok()),
                _ => {}
            }
        }
        // Without the parameter it is Date alone (draft-cavage-http-signatures-10, section 2.1.6).
        let covered = covered.unwrap_or_else(|| "date".to_owned());
        found.covered = covered
            .split_ascii_whitespace()
            .filter(|name| !name.starts_with('('))
            .map(str::to_ascii_lowercase)
            .collect();
        found
    }
}

/// The parameters of `Authorization: Signature ..`, the same as in a `Signature` header.
pub fn authorization(headers: &HeaderMap) -> Option<&str> {
    let line = headers.get("authorization")?.to_str().ok()?;
    let (scheme, parameters) = line.split_once(' ')?;
    scheme.eq_ignore_ascii_case("signature").then_some(parameters)
}

/// The authority (host, and port if it has one) of an http(s) URL, as a key's or an actor's id is one. Not a whole URL
/// parser: whether it is a name is for whoever reads it as one.
pub fn authority(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    Some(&rest[..end])
}

fn whole_seconds(item: &BareItem) -> Option<i64> {
    match item {
        BareItem::Integer(seconds) => Some(i64::from(*seconds)),
        _ => None,
    }
}

/// `a="x, \"y\"",b=3` as name and value pairs; what doesn't fit the form ends the list.
fn parameters(line: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = value(after.trim_start());
        found.push((name.trim(), value));
        rest = after.trim_start();
        let Some(next) = rest.strip_prefix(',') else { break };
        rest = next.trim_start();
    }
    found
}

/// A quoted value with its escapes undone, or a bare one up to the comma; and what follows.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn of(lines: &[(&'static str, &str)]) -> Option<Signature> {
        Signature::of(&headers(lines))
    }

    const CAVAGE: &str = r#"keyId="https://lemmy.world/u/a#main-key",algorithm="hs2019", headers="(request-target) content-type Date digest host", created=1795319944, expires="1795323544.5", signature="a=b,c==""#;

    #[test]
    fn a_cavage_signature_is_read_from_either_header() {
        let expected = Signature {
            key_id: Some("https://lemmy.world/u/a#main-key".into()),
            covered: ["content-type", "date", "digest", "host"].map(String::from).to_vec(),
            created: Some(1_795_319_944),
            expires: Some(1_795_323_544),
        };
        assert_eq!(of(&[("signature", CAVAGE)]).unwrap(), expected);
        assert_eq!(of(&[("authorization", &format!("Signature {CAVAGE}"))]).unwrap(), expected);
        assert_eq!(of(&[("authorization", "Bearer abc")]), None);
    }

    #[test]
    fn without_a_list_it_covers_the_date() {
        assert_eq!(of(&[("signature", "keyId=\"a\",signature=\"b\"")]).unwrap().covered, ["date"]);
    }

    #[test]
    fn an_rfc_9421_signature_is_read() {
        let found = of(&[
            (
                "signature-input",
                r#"sig1=("@method" "@target-uri" "host" "content-digest";req);alg="rsa-v1_5-sha256";keyid="https://a.example/k";created=1795319944;expires=1795323544, proxy=("forwarded");keyid="other""#,
            ),
            ("signature", "sig1=:YQ==:"),
        ])
        .unwrap();
        assert_eq!(found.key_id.as_deref(), Some("https://a.example/k"));
        assert_eq!(found.covered, ["host", "content-digest", "forwarded"]);
        assert_eq!((found.created, found.expires), (Some(1_795_319_944), Some(1_795_323_544)));
    }

    #[test]
    fn what_can_not_be_read_is_a_signature_without_a_key() {
        assert_eq!(of(&[("signature-input", "sig1=(((")]).unwrap().key_id, None);
        assert_eq!(of(&[("signature", "sig1=:YQ==:")]).unwrap().key_id, None);
        assert_eq!(of(&[("signature", "keyId=\"unterminated")]).unwrap().key_id.as_deref(), Some("unterminated"));
        assert_eq!(of(&[("date", "today")]), None);
    }

    #[test]
    fn escapes_in_a_value_are_undone() {
        assert_eq!(parameters(r#"a="x\"y,z",b=3 , c"#), [("a", "x\"y,z".to_owned()), ("b", "3".to_owned())]);
    }
}
