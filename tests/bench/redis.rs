//! Raw Redis: one hash an entity, fifty fields as text, `HMGET` for each entity asked for, pipelined.

use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::Result;
use super::drive::{Feed, Job, Load, Tally, drive};
use super::world::World;

fn words(out: &mut Vec<u8>, words: &[&str]) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
}

/// Stores every entity's features; a NULL is a field that is not there.
pub(crate) async fn fill(dir: &Path, address: &str) -> Result<()> {
    let world = World::read(dir, 50)?;
    let mut stream = TcpStream::connect(address).await?;
    for first in (0..world.entities.len()).step_by(1000) {
        let entities = first..(first + 1000).min(world.entities.len());
        let mut out = vec![];
        for entity in entities.clone() {
            let values = world.bits(entity as u32).iter().zip(&world.features);
            let values: Vec<(String, String)> = values.filter_map(|(v, f)| Some((f.clone(), f64::from_bits((*v)?).to_string()))).collect();
            let mut command = vec!["HSET", world.entities[entity].as_str()];
            command.extend(values.iter().flat_map(|(f, v)| [f.as_str(), v.as_str()]));
            words(&mut out, &command);
        }
        stream.write_all(&out).await?;
        let mut reader = BufReader::new(&mut stream);
        let mut line = String::new();
        for _ in entities {
            line.clear();
            reader.read_line(&mut line).await?;
            if !line.starts_with(':') {
                return Err(format!("Redis answered {line:?}").into());
            }
        }
    }
    println!("redis: {} hashes of {} fields", world.entities.len(), world.features.len());
    Ok(())
}

pub(crate) async fn hmget(address: &str, world: &World, batch: usize, connections: usize, load: Load) -> Result<Tally> {
    let fields: Vec<&str> = world.features.iter().map(String::as_str).collect();
    let requests: Vec<Vec<u8>> = (0..world.requests(batch))
        .map(|request| {
            let mut out = vec![];
            for key in world.keys(request, batch) {
                let mut command = vec!["HMGET", world.entities[*key as usize].as_str()];
                command.extend(&fields);
                words(&mut out, &command);
            }
            out
        })
        .collect();
    let shared = Rc::new((world.clone(), requests));
    let address = address.to_owned();
    drive(connections, load, move |feed| {
        let (shared, address) = (shared.clone(), address.clone());
        async move { pipeline(&address, &shared.0, &shared.1, batch, feed).await }
    })
    .await
}

async fn pipeline(address: &str, world: &World, requests: &[Vec<u8>], batch: usize, mut feed: Feed) -> Result<Feed> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let mut waiting: VecDeque<Job> = VecDeque::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            biased;
            job = feed.jobs.recv(), if open => match job {
                Some(job) => {
                    writer.write_all(&requests[job.request % requests.len()]).await?;
                    waiting.push_back(job);
                }
                None => open = false,
            },
            // Only waits: what is read is read whole below, so that nothing is lost when a job comes first.
            ready = reader.fill_buf(), if !waiting.is_empty() => {
                if ready?.is_empty() {
                    return Err("Redis closed the connection".into());
                }
                let job = waiting.pop_front().ok_or("an answer without a request")?;
                let mut right = true;
                for key in world.keys(job.request, batch) {
                    right &= is_right(&mut reader, world.bits(*key)).await?;
                }
                feed.done(job, right);
            }
        }
    }
    Ok(feed)
}

/// Reads one array of values and compares it.
async fn is_right(reader: &mut BufReader<OwnedReadHalf>, wanted: &[Option<u64>]) -> Result<bool> {
    let mut line = Vec::with_capacity(32);
    let head = async |reader: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>| -> Result<i64> {
        line.clear();
        reader.read_until(b'\n', line).await?;
        let text = std::str::from_utf8(line)?.trim_end();
        text.get(1..).and_then(|n| n.parse().ok()).ok_or_else(|| format!("Redis answered {text:?}").into())
    };
    if head(reader, &mut line).await? != wanted.len() as i64 {
        return Ok(false);
    }
    let mut right = true;
    for value in wanted {
        let bytes = head(reader, &mut line).await?;
        let found = if bytes < 0 {
            None
        } else {
            line.resize(bytes as usize + 2, 0);
            reader.read_exact(&mut line).await?;
            Some(std::str::from_utf8(&line[..bytes as usize])?.parse::<f64>()?.to_bits())
        };
        right &= found == *value;
    }
    Ok(right)
}
