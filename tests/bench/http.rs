//! Feast's Python server over HTTP/1.1: one request at a time on a connection that is kept.

use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Result;
use super::drive::{Feed, Load, Tally, drive};
use super::world::World;

pub(crate) async fn feast(address: &str, world: &World, batch: usize, connections: usize, load: Load) -> Result<Tally> {
    let features: Vec<String> = world.features.iter().map(|f| format!("user_stats:{f}")).collect();
    let requests: Vec<Vec<u8>> = (0..world.requests(batch))
        .map(|request| {
            let keys: Vec<&str> = world.keys(request, batch).iter().map(|k| world.entities[*k as usize].as_str()).collect();
            let body = serde_json::json!({"features": features, "entities": {"user_id": keys}}).to_string();
            let head = format!(
                "POST /get-online-features HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            (head + &body).into_bytes()
        })
        .collect();
    let shared = Rc::new((world.clone(), requests));
    let address: Arc<str> = address.into();
    drive(connections, load, move |feed| {
        let (shared, address) = (shared.clone(), address.clone());
        async move { connection(&address, &shared.0, &shared.1, batch, feed).await }
    })
    .await
}

async fn connection(address: &str, world: &World, requests: &[Vec<u8>], batch: usize, mut feed: Feed) -> Result<Feed> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    while let Some(job) = feed.jobs.recv().await {
        stream.write_all(&requests[job.request % requests.len()]).await?;
        let body = response(&mut stream).await?;
        let right = is_right(&body, world, world.keys(job.request, batch));
        feed.done(job, right);
    }
    Ok(feed)
}

async fn response(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let (mut line, mut length, mut status) = (String::new(), None, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let text = line.trim_end();
        if status.is_empty() {
            text.clone_into(&mut status);
        } else if text.is_empty() {
            break;
        } else if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse::<usize>()?);
        }
    }
    let mut body = vec![0; length.ok_or("a response without a length")?];
    stream.read_exact(&mut body).await?;
    if !status.contains(" 200") {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(body)
}

/// Feast gives a list a column, the entity's first; the names say which is which.
fn is_right(body: &[u8], world: &World, keys: &[u32]) -> bool {
    let Ok(found) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
    let Some(names) = found["metadata"]["feature_names"].as_array() else { return false };
    world.features.iter().enumerate().all(|(f, feature)| {
        let Some(column) = names.iter().position(|n| n.as_str() == Some(feature)) else { return false };
        keys.iter().enumerate().all(|(row, key)| {
            let value = found["results"][column]["values"][row].as_f64();
            match (value, world.bits(*key)[f].map(f64::from_bits)) {
                (None, None) => true,
                // Parsing its JSON here may be off by the last bit.
                (Some(found), Some(wanted)) => (found - wanted).abs() <= wanted.abs() * 1e-15,
                _ => false,
            }
        })
    })
}
