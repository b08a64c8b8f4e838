//! Ports: the manual's at the first start where they are free, the next free ones where they are not; afterwards those of before.

use super::layout::Ports;
use crate::cli::LocalPorts;
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

/// These ports, with those that were asked for in their places.
pub fn over(mut ports: Ports, asked: LocalPorts) -> Ports {
    let [first, second] = &mut ports.masters;
    let places = [first, second, &mut ports.redis];
    for (place, asked) in places.into_iter().zip(in_order(asked)) {
        *place = asked.unwrap_or(*place);
    }
    ports
}

/// The flags that ask for the same ports.
pub fn as_flags(asked: LocalPorts) -> Vec<String> {
    let flags = ["--master1-port", "--master2-port", "--redis-port"];
    let asked = flags.into_iter().zip(in_order(asked));
    let given = asked.filter_map(|(flag, port)| Some([flag.to_string(), port?.to_string()]));
    given.flatten().collect()
}

fn in_order(asked: LocalPorts) -> [Option<u16>; 3] {
    [asked.master1_port, asked.master2_port, asked.redis_port]
}

/// Claims each wanted port, or the next free one where it is not one of the `fixed`, and says so through `say`.
///
/// # Errors
/// When a fixed one is taken, or none of [`limits::PORTS_TRIED`] others is free, or when a port cannot be had for another reason
/// than that somebody has it, since then the next one cannot be had either.
pub fn choose(
    wanted: Ports,
    fixed: LocalPorts,
    bind: IpAddr,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<Claim> {
    let [first, second, redis] = in_order(fixed).map(|port| port.is_some());
    claim(parts(wanted, bind, [first, second, redis, false]), say)
}

/// Claims the ports that a cluster had before. Its clients go by them, and another cluster that took one over would be asked in its
/// place.
///
/// # Errors
/// When one of them cannot be had.
pub fn keep(ports: Ports, bind: IpAddr) -> anyhow::Result<Claim> {
    claim(parts(ports, bind, [true; 4]), &mut |_| ())
        .context("this cluster keeps the ports that it had")
}

/// One of the four, the port that it is to have, and how many after that may take its place.
struct Part {
    name: &'static str,
    port: u16,
    address: IpAddr,
    more: u16,
}

/// Both masters, Redis and the API.
fn parts(wanted: Ports, bind: IpAddr, fixed: [bool; 4]) -> [Part; 4] {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let [first, second] = wanted.masters;
    let part = |name, port, address, fixed| Part {
        name,
        port,
        address,
        more: if fixed { 0 } else { limits::PORTS_TRIED },
    };
    [
        part("master1", first, loopback, fixed[0]),
        part("master2", second, loopback, fixed[1]),
        part("redis", wanted.redis, loopback, fixed[2]),
        part("the API", wanted.api, bind, fixed[3]),
    ]
}

/// Claims the port of each part, or one of as many after it as it may have.
fn claim(parts: [Part; 4], say: &mut dyn FnMut(&str)) -> anyhow::Result<Claim> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    // Those with no choice come first, so that none of the others takes their place.
    order.sort_by_key(|index| parts[*index].more);
    let (mut held, mut chosen) = (Vec::new(), [0; 4]);
    for (place, index) in order.iter().enumerate() {
        let part = &parts[*index];
        let before = order[..place].iter().map(|index| &parts[*index]);
        let same = |other: &&Part| part.more == 0 && other.more == 0 && other.port == part.port;
        if let Some(other) = before.clone().find(same) {
            let (name, port) = (part.name, part.port);
            bail!("{} and {name} cannot both have port {port}", other.name);
        }
        let others = parts.each_ref().map(|part| part.port);
        let socket = take(part, &others)?;
        chosen[*index] = socket.local_addr()?.port();
        if chosen[*index] != part.port {
            let (name, port) = (part.name, part.port);
            say(&format!(
                "port {port} is taken, so {name} uses {}",
                chosen[*index]
            ));
        }
        held.push(socket);
    }
    let [first, second, redis, api] = chosen;
    Ok(Claim {
        ports: Ports {
            api,
            masters: [first, second],
            redis,
        },
        held: Mutex::new(held),
    })
}

/// Takes the port of a part, or the first free one after it that is none of `others`.
fn take(part: &Part, others: &[u16]) -> anyhow::Result<TcpListener> {
    let Part { name, port, .. } = *part;
    let last = port.saturating_add(part.more);
    // A port that another part wants is not a free one.
    let candidates = (port..=last).filter(|next| *next == port || !others.contains(next));
    for candidate in candidates {
        match TcpListener::bind((part.address, candidate)) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == ErrorKind::AddrInUse => continue,
            Err(error) => {
                let at = SocketAddr::new(part.address, candidate);
                return Err(anyhow!(error).context(format!("{name} cannot listen on {at}")));
            }
        }
    }
    match part.more {
        0 => bail!(
            "port {port} of {name} is taken; end what has it, or let the cluster take another with \
             `imdb-ha local up --move-ports`"
        ),
        more => bail!("port {port} of {name} is taken, and so are the {more} after it"),
    }
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
        let none = LocalPorts::default();
        let claim = choose(wanted, none, [127, 0, 0, 1].into(), &mut |line| {
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
    fn a_port_that_was_asked_for_is_that_one_or_an_error() {
        let bind = IpAddr::from([127, 0, 0, 1]);
        let free = any().expect("free ports");
        let ports = free.ports;
        drop(free);
        // What was asked for comes first: here master2 gets the port that master1 would have taken.
        let asked = LocalPorts {
            master2_port: Some(ports.masters[0]),
            ..LocalPorts::default()
        };
        let mut said = 0;
        let claim = choose(over(ports, asked), asked, bind, &mut |_| said += 1).expect("ports");
        assert_eq!(claim.ports.masters[1], ports.masters[0]);
        assert!(claim.ports.masters[0] > ports.masters[0] && said == 1);
        let error = choose(over(ports, asked), asked, bind, &mut |_| ()).err();
        let told = format!("{:#}", error.expect("it is taken"));
        let begin = format!("port {} of master2 is taken", ports.masters[0]);
        assert!(
            told.starts_with(&begin) && told.contains("--move-ports"),
            "{told}"
        );
        drop(claim);
        let both = LocalPorts {
            master1_port: Some(ports.redis),
            redis_port: Some(ports.redis),
            ..LocalPorts::default()
        };
        let error = choose(over(ports, both), both, bind, &mut |_| ()).err();
        let told = format!("{:#}", error.expect("one port for two"));
        let why = format!("master1 and redis cannot both have port {}", ports.redis);
        assert_eq!(told, why);
        let flags = ["--master1-port", "--redis-port"]
            .map(|flag| [flag.to_string(), ports.redis.to_string()]);
        assert_eq!(as_flags(both), flags.concat());
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
        let none = LocalPorts::default();
        let error = choose(free, none, [192, 0, 2, 1].into(), &mut |line| {
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
