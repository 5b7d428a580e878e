//! `<service> --healthy`: asks the service of the same environment, through its own admin listener, whether it is alive.
//!
//! For images that hold nothing but the binary: no shell, no curl. `/healthz` and not `/readyz`: a supervisor that
//! restarts what waits for its broker makes nothing better.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::Service;
use crate::cli::Failure;
use crate::config::Environment;

/// The admin listener answers from memory; one that needs longer is not healthy.
const PATIENCE: Duration = Duration::from_secs(2);

/// The variable of every service's table that says where to ask.
const WHERE: &str = "FED_ADMIN_LISTEN";

/// Whether the service answers.
///
/// # Errors
/// One line that says why not: exit code 64 for a wrong setting, 1 for no answer or another one than 200.
pub fn ask(service: &Service, environment: &Environment) -> Result<(), Failure> {
    let Some(variable) = service.all_variables().find(|variable| variable.name == WHERE) else {
        return Err(Failure::usage(format_args!("{WHERE} is not a variable of this service")));
    };
    let text = environment.value_of(variable)?.unwrap_or_default();
    let address = text.trim().parse().map_err(|error| Failure::usage(format_args!("{WHERE}={text}: {error}")))?;
    let answer = get(reachable(address)).map_err(|error| Failure::other(format_args!("{address}: {error}")))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(()) } else { Err(Failure::other(format_args!("{address}: /healthz answered {status:?}"))) }
}

/// Where a listener on every address is reached from here.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The beginning of the answer.
fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In one piece: a listener that answers the first line and closes would break the pipe of a second piece.
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut beginning = [0; 12]; // "HTTP/1.1 200"
    stream.read_exact(&mut beginning)?;
    Ok(String::from_utf8_lossy(&beginning).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Variable, common};
    use std::net::TcpListener;

    static COMMON: [Variable; common::COUNT] = common::variables("127.0.0.1:9090");
    static SERVICE: Service = Service { name: "sample", about: "", version: "0", variables: &[&COMMON] };

    fn ask_at(address: &str) -> Result<(), Failure> {
        ask(&SERVICE, &Environment::from_pairs(&[(WHERE, address)]))
    }

    /// A listener that gives one answer.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /healthz "));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_service_that_answers_is_healthy_also_on_every_address() {
        let address = answering("HTTP/1.1 200 OK\r\n\r\nok\n");
        assert_eq!(ask_at(&address.to_string()), Ok(()));
        let port = answering("HTTP/1.1 200 OK\r\n\r\nok\n").port();
        assert_eq!(ask_at(&format!("0.0.0.0:{port}")), Ok(()));
    }

    #[test]
    fn another_answer_or_none_is_one_line_and_exit_code_1() {
        let other = ask_at(&answering("HTTP/1.1 404 Not Found\r\n\r\n").to_string()).unwrap_err();
        assert!(other.code == 1 && other.line.contains("404"), "{other:?}");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(ask_at(&closed.to_string()).unwrap_err().code, 1);
        assert_eq!(ask_at("nowhere").unwrap_err().code, crate::cli::USAGE);
    }
}
