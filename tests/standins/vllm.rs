//! Stands in for `vllm serve`: it listens where it is told, wants the key of its environment, and answers completions as vLLM documents them, with
//! likelihoods that depend on all tokens before. `LLMCB_STAND_IN` makes it do one wrong thing.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use llmcb_tests::hub::request_head;
use serde_json::{Value, json};

fn does(what: &str) -> bool {
    std::env::var("LLMCB_STAND_IN").is_ok_and(|mode| mode == what)
}

fn after(tokens: &[u64]) -> u64 {
    tokens
        .iter()
        .fold(1, |state: u64, token| (state ^ token).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29))
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    assert_eq!(arguments.get(1).map(String::as_str), Some("serve"));
    let model = std::path::Path::new(&arguments[2]);
    assert!(
        model.join("config.json").is_file() && model.join("model.safetensors").is_file(),
        "{}",
        model.display()
    );
    if let Ok(file) = std::env::var("LLMCB_STAND_IN_PID") {
        // What it starts is to end with it.
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("a process of its own");
        std::fs::write(file, format!("{} {}", std::process::id(), child.id())).expect("process ids");
        std::thread::spawn(move || child.wait());
    }
    eprintln!("INFO starting to load model {}", model.display());
    if does("crashes at load") {
        eprintln!("Traceback (most recent call last):");
        eprintln!("ValueError: The input size is not aligned with the quantized weight shape.");
        std::process::exit(1);
    }
    if does("unsupported format") {
        eprintln!("pydantic_core.ValidationError: 1 validation error for ModelConfig");
        eprintln!("  Value error, Unknown quantization method: nf2. Must be one of ['awq', 'gptq']");
        std::process::exit(1);
    }
    if does("asymmetric") {
        eprintln!("pydantic_core.ValidationError: 1 validation error for VllmConfig");
        eprintln!("  Value error, Unsupported quantization config: bits=4, sym=False [type=value_error]");
        std::process::exit(1);
    }
    if does("other numbers") {
        eprintln!("pydantic_core.ValidationError: 1 validation error for VllmConfig");
        eprintln!(
            "  Value error, torch.float32 is not supported for quantization method gptq. Supported dtypes: [torch.float16]"
        );
        std::process::exit(1);
    }
    if does("never ready") {
        std::thread::sleep(Duration::from_secs(600));
    }
    if does("works hard") {
        let spent = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        while (spent().tv_sec, spent().tv_nsec) < (1, 500_000_000) {
            std::hint::spin_loop();
        }
    }
    if does("slow start") {
        for step in 0..4 {
            std::thread::sleep(Duration::from_millis(400));
            eprintln!("INFO compiling graph {step}");
        }
    }
    let port: u16 = value("--port").and_then(|port| port.parse().ok()).expect("--port");
    let listener = match TcpListener::bind((value("--host").expect("--host"), port)) {
        Ok(listener) if !does("port taken") => listener,
        _ => {
            eprintln!(
                "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', {port}): address already in use"
            );
            std::process::exit(1);
        }
    };
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let Some(head) = request_head(&mut reader)? else { return Ok(()) };
        let head = head.to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0u8; length];
        reader.read_exact(&mut body)?;
        if head.starts_with("get /health") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let key = std::env::var("VLLM_API_KEY").expect("a key").to_ascii_lowercase();
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (status, answer) = match head.contains(&format!("authorization: bearer {key}")) {
            false => ("401 Unauthorized", json!({"error": "Unauthorized"}).to_string()),
            true if request["stream"] == true => {
                answer_stream(&mut stream, &request)?;
                continue;
            }
            true => answer(&request),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
}

fn tokens(value: &Value) -> Vec<u64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

fn answer(request: &Value) -> (&'static str, String) {
    if does("dies in a request") {
        eprintln!("RuntimeError: Engine core initialization failed. Out of memory");
        std::process::exit(1);
    }
    if does("refuses") {
        let error =
            json!({"error": {"message": "This model's maximum context length is 8 tokens.", "code": 400}});
        return ("400 Bad Request", error.to_string());
    }
    if does("answers garbage") {
        return ("200 OK", "<html>".to_owned());
    }
    let prompts: Vec<Vec<u64>> = match request["prompt"][0].is_array() {
        true => request["prompt"].as_array().into_iter().flatten().map(tokens).collect(),
        false => vec![tokens(&request["prompt"])],
    };
    let choice = |(index, prompt): (usize, &Vec<u64>)| {
        let mut all = vec![Value::Null];
        for at in 1..prompt.len() {
            let state = after(&prompt[..at]) ^ prompt[at];
            let logprob = -((state.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 48) as f64) / 8192.0;
            let rank = if logprob > -1.0 { 1 } else { 2 };
            all.push(
                json!({prompt[at].to_string(): {"logprob": logprob, "rank": rank, "decoded_token": "?"}}),
            );
        }
        if does("gives partial output") {
            all.pop();
        }
        json!({"index": index, "text": "?", "prompt_logprobs": all, "token_ids": [5]})
    };
    let choices: Vec<Value> = prompts.iter().enumerate().map(choice).collect();
    ("200 OK", json!({"choices": choices}).to_string())
}

fn answer_stream(stream: &mut TcpStream, request: &Value) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    let wanted = request["max_tokens"].as_u64().unwrap_or(0);
    for at in 0..wanted {
        std::thread::sleep(Duration::from_millis(2));
        if does("breaks a stream off") && at == 1 {
            return stream.shutdown(std::net::Shutdown::Both);
        }
        let event = json!({"choices": [{"index": 0, "token_ids": [at]}]});
        let text = format!("data: {event}\n\n");
        write!(stream, "{:x}\r\n{text}\r\n", text.len())?;
        stream.flush()?;
    }
    let text = "data: [DONE]\n\n";
    write!(stream, "{:x}\r\n{text}\r\n0\r\n\r\n", text.len())
}
