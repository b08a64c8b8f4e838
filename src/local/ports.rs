//! Ports: the manual's at the first start where they are free, the next free ones where they are not; afterwards those of before.

use super::layout::Ports;
use crate::limits;
use anyhow::{Context, anyhow, bail};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The manual's ports, with the API's as configured.
pub fn wanted(api: u16) -> Ports {
    Ports {
        api,
        masters: [5432, 5433],
        redis: 6379,
    }
}

/// Ports that nobody else gets until their server is about to start: two clusters that start at the
/// same moment would otherwise choose the same ones.
pub struct Claim {
    pub ports: Ports,
    held: Mutex<Vec<TcpListener>>,
}

impl Claim {
    /// Lets go of a port, for the server that is started next.
    pub fn release(&self, port: u16) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|socket| {
            socket
                .local_addr()
                .is_ok_and(|address| address.port() != port)
        });
    }
}

/// The name by which starts on one machine take turns, in a space that has the same borders as ports: the network namespace.
const TURN: &str = "imdb-ha local up";

/// Waits until no other start of a cluster is between choosing its ports and having servers that listen on them: a port is let go a
/// moment before its server takes it, and another start could choose it just then. The turn ends when the result is dropped, or with its
/// process. It is no more than a courtesy, so whoever has waited for [`limits::LOCAL_TURN`] goes on without.
pub fn turn(give_up: &dyn Fn() -> bool) -> Option<UnixListener> {
    let name = UnixAddr::from_abstract_name(TURN).ok()?;
    let deadline = Instant::now() + limits::LOCAL_TURN;
    loop {
        match UnixListener::bind_addr(&name) {
            Ok(turn) => return Some(turn),
            Err(error) if error.kind() != ErrorKind::AddrInUse => return None,
            Err(_) if give_up() || Instant::now() >= deadline => return None,
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Claims each wanted port, or the next free one, and says so through `say`.
///
/// # Errors
/// When none of [`limits::PORTS_TRIED`] ports is free, or when a port cannot be had for another reason
/// than that somebody has it, since then the next one cannot be had either.
pub fn choose(wanted: Ports, bind: IpAddr, say: &mut dyn FnMut(&str)) -> anyhow::Result<Claim> {
    claim(wanted, bind, limits::PORTS_TRIED, say)
}

/// Claims the ports that a cluster had before. Its clients go by them, and another cluster that took one over would be asked in its
/// place.
///
/// # Errors
/// When one of them cannot be had.
pub fn keep(ports: Ports, bind: IpAddr) -> anyhow::Result<Claim> {
    claim(ports, bind, 0, &mut |_| ()).context(
        "this cluster keeps the ports that it had; end what has one of them, or let the cluster take others with \
         `imdb-ha local up --move-ports`",
    )
}

/// Claims each wanted port, or one of as many after it as are given.
fn claim(
    wanted: Ports,
    bind: IpAddr,
    more: u16,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<Claim> {
    let mut held = Vec::new();
    let mut take = |name: &str, port: u16, address: IpAddr| {
        let last = port.saturating_add(more);
        // A port that another of the four wants is not a free one.
        let others = [
            wanted.api,
            wanted.masters[0],
            wanted.masters[1],
            wanted.redis,
        ];
        let candidates = (port..=last).filter(|next| *next == port || !others.contains(next));
        for candidate in candidates {
            match TcpListener::bind((address, candidate)) {
                Ok(socket) => held.push(socket),
                Err(error) if error.kind() == ErrorKind::AddrInUse => continue,
                Err(error) => {
                    let at = SocketAddr::new(address, candidate);
                    return Err(anyhow!(error).context(format!("{name} cannot listen on {at}")));
                }
            }
            if candidate != port {
                say(&format!("port {port} is taken, so {name} uses {candidate}"));
            }
            return Ok(candidate);
        }
        match more {
            0 => bail!("port {port} of {name} is taken"),
            _ => bail!("port {port} of {name} is taken, and so are the {more} after it"),
        }
    };
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let [first, second] = wanted.masters;
    let ports = Ports {
        masters: [
            take("master1", first, loopback)?,
            take("master2", second, loopback)?,
        ],
        redis: take("redis", wanted.redis, loopback)?,
        api: take("the API", wanted.api, bind)?,
    };
    Ok(Claim {
        ports,
        held: Mutex::new(held),
    })
}

/// Claims any four ports, for a cluster that nobody needs to find by itself.
///
/// # Errors
/// Those of the sockets.
pub fn any() -> anyhow::Result<Claim> {
    let held: Vec<TcpListener> = (0..4)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()
        .context("find four free ports")?;
    let ports: Vec<u16> = held
        .iter()
        .map(|socket| Ok(socket.local_addr()?.port()))
        .collect::<std::io::Result<_>>()?;
    let ports = Ports {
        api: ports[0],
        masters: [ports[1], ports[2]],
        redis: ports[3],
    };
    Ok(Claim {
        ports,
        held: Mutex::new(held),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_yields_the_next_free_one_and_a_line() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = taken.local_addr().expect("its address").port();
        let free = any().expect("free ports").ports;
        let mut said = Vec::new();
        let wanted = Ports {
            redis: port,
            ..free
        };
        let claim = choose(wanted, [127, 0, 0, 1].into(), &mut |line| {
            said.push(line.to_string())
        });
        let claim = claim.expect("ports");
        let chosen = claim.ports;
        assert_eq!((chosen.api, chosen.masters), (free.api, free.masters));
        assert!(chosen.redis > port && !free.masters.contains(&chosen.redis));
        assert_eq!(
            said,
            [format!(
                "port {port} is taken, so redis uses {}",
                chosen.redis
            )]
        );
        // Nobody else gets it until it is let go.
        assert!(TcpListener::bind(("127.0.0.1", chosen.api)).is_err());
        claim.release(chosen.api);
        assert!(TcpListener::bind(("127.0.0.1", chosen.api)).is_ok());
    }

    #[test]
    fn a_cluster_keeps_its_ports() {
        let claim = any().expect("free ports");
        let ports = claim.ports;
        let bind = IpAddr::from([127, 0, 0, 1]);
        [ports.api, ports.masters[0], ports.redis]
            .into_iter()
            .for_each(|port| claim.release(port));
        let error = keep(ports, bind).err().expect("master2's is taken");
        let told = format!("{error:#}");
        let begin = format!("port {} of master2 is taken", ports.masters[1]);
        assert!(
            told.contains(&begin) && told.contains("--move-ports"),
            "{told}"
        );
        claim.release(ports.masters[1]);
        assert_eq!(keep(ports, bind).expect("all are free").ports, ports);
    }

    #[test]
    fn starts_take_turns() {
        // Somebody else's start on this machine may have it for some seconds.
        let held = turn(&|| false).expect("a turn");
        assert!(turn(&|| true).is_none());
        drop(held);
        assert!(turn(&|| false).is_some());
    }

    #[test]
    fn an_address_of_another_machine_is_an_error_and_no_taken_port() {
        let free = any().expect("free ports").ports;
        // This range is for documentation, and so no machine's.
        let error = choose(free, [192, 0, 2, 1].into(), &mut |line| {
            panic!("said {line}")
        })
        .err()
        .expect("it cannot be listened on");
        let told = format!("{error:#}");
        let begin = format!("the API cannot listen on 192.0.2.1:{}: ", free.api);
        assert!(told.starts_with(&begin), "{told}");
        assert!(told.contains("assign requested address"), "{told}");
    }
}
