//! What the front door reads of each signature. `make bench-micro`.

use divan::{Bencher, black_box};
use fedstream_service::signature::Signature;
use http::{HeaderMap, HeaderValue};

const CAVAGE: &str = "keyId=\"https://lemmy.world/u/ann#main-key\",algorithm=\"hs2019\",headers=\"(request-target) \
    content-type date digest host\",signature=\"JEYZnlCQFr6EUVtkDTGmafauPkhlzOjZOw1omK7VpqhXV0JTzZwkUDsyLzbbd/4XlBR6fOwd4Fds\
    WE5n9BohNQsN59BQ7WIrEgJWyN1VmQto8VBs/APVX1vEy6/4InhydlBMieBmtMAlRzHlYwSBCdaXaITdsblIc4TOElizORB1bxdAnR6/sWEOqO/vSGew\"";
const RFC9421: &str = "sig1=(\"@method\" \"@target-uri\" \"@authority\" \"host\" \"date\" \"content-digest\");\
    alg=\"rsa-v1_5-sha256\";keyid=\"https://fedify.example/u/ann#main-key\";created=1795323803";

fn main() {
    divan::main();
}

fn headers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
}

#[divan::bench]
fn of_lemmy(bencher: Bencher<'_, '_>) {
    let headers = headers("signature", CAVAGE);
    bencher.bench_local(|| Signature::of(black_box(&headers)));
}

#[divan::bench]
fn of_fedify(bencher: Bencher<'_, '_>) {
    let headers = headers("signature-input", RFC9421);
    bencher.bench_local(|| Signature::of(black_box(&headers)));
}
