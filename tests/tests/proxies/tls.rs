//! A certificate authority of the test's own, and TLS for parts of the harness that speak plain HTTP: around a sender
//! (a tunnel that says who it is and from which address it comes) and in front of an instance.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedstream_tests::door::Door;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority, and the files of what it issued.
pub struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let directory = TempDir::with_prefix("fedstream-ca-").expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "fedstream test authority");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("room");
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, for those who trust it.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for this name.
    pub fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |end: &str| self.directory.path().join(format!("{name}.{end}"));
        let issued = Issued { certificate: file("pem"), key: file("key") };
        std::fs::write(&issued.certificate, certificate.pem()).expect("room");
        std::fs::write(&issued.key, key.serialize_pem()).expect("room");
        issued
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.file())).expect("our own");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(builder.expect("versions").with_root_certificates(roots).with_no_client_auth())
    }
}

/// Plain on this side, TLS on the other: where a sender connects, as if it were at `from`.
pub fn tunnel(authority: &Authority, from: &str, name: &str, to: SocketAddr) -> impl Future<Output = Door> + use<> {
    let (connector, from) = (TlsConnector::from(authority.client()), from.parse::<IpAddr>().expect("an address"));
    let name = ServerName::try_from(name.to_owned()).expect("a host name");
    open(move |plain| {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(from, 0))?;
            let stream = socket.connect(to).await?;
            stream.set_nodelay(true)?;
            carry(plain, connector.connect(name, stream).await?).await
        }
    })
}

/// TLS on this side, plain on the other: in front of an instance.
pub fn terminate(issued: &Issued, to: SocketAddr) -> impl Future<Output = Door> + use<> {
    let key = PrivateKeyDer::from_pem_file(&issued.key).expect("our own key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_no_client_auth();
    let config = config.with_single_cert(vec![certificate(&issued.certificate)], key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    open(move |secret| {
        let acceptor = acceptor.clone();
        async move {
            let secret = acceptor.accept(secret).await?;
            carry(TcpStream::connect(to).await?, secret).await
        }
    })
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("our own certificate")
}

async fn carry(
    mut one: TcpStream,
    mut other: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> std::io::Result<()> {
    one.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut one, &mut other).await.map(drop)
}

async fn open<C>(carry: impl Fn(TcpStream) -> C + Send + 'static) -> Door
where
    C: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let mut door = Door::closed();
    let accepting = |listener: TcpListener| async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    connections.spawn(carry(stream));
                },
                // A connection's error is its end: both sides see it closed.
                Some(_ended) = connections.join_next() => {}
            }
        }
    };
    door.open(accepting).await.expect("its port is free");
    door
}
