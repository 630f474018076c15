//! Any bytes as `X-Forwarded-For` and `Forwarded` of a trusted proxy. What the proxy adds behind them must count, and what goes
//! on must say the same again.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use weir::limits::address::client_address;

fuzz_target!(|bytes: &[u8]| {
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let peer = IpAddr::from([10, 0, 0, 1]);
    let client = IpAddr::from([192, 0, 2, 1]);
    let lines = || bytes.split(|&byte| byte == b'\n');
    let nothing = || [].into_iter();
    let _ = client_address(peer, &trusted, lines(), nothing());
    let _ = client_address(peer, &trusted, nothing(), lines());

    let x = [bytes, b", 192.0.2.1, 10.0.0.2"].concat();
    let forwarded = [bytes, b",For=\"192.0.2.1:7\" ;a=b, for=10.0.0.2"].concat();
    assert!(client_address(peer, &trusted, [&x[..]].into_iter(), lines()) == client);
    assert!(client_address(peer, &trusted, nothing(), [&forwarded[..]].into_iter()) == client);
    // A stranger is himself whatever he says.
    assert!(client_address(client, &trusted, lines(), lines()) == client);
});
