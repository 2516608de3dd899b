-- Posts chats, and prints what happened as one line of JSON. Every user's text is another one, so that nothing
-- but the system prompt, which an application does send again and again, can be remembered.
local prompts = {
  "When will my parcel arrive? It holds a lamp for a room that is ",
  "Please write a note to my landlord about the walls, which are ",
  "What shall I cook for eight guests who like their dinner to be ",
  "Give me three ideas for a small flat in which the light is now ",
}
local words = {
  "blue", "warm", "wide", "tall", "soft", "dark", "cold", "fair", "late", "long", "neat", "pale", "rare", "safe",
  "slow", "thin",
}
local turn = os.time() % 65536 * 65536  -- 65,536 requests for each second: no round begins where another was
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer bench"

function request()
  turn = turn + 1
  local said, left = prompts[turn % #prompts + 1], turn
  for _ = 1, 8 do
    said = said .. words[left % #words + 1] .. " "
    left = math.floor(left / #words)
  end
  local body = '{"model":"bench","messages":[{"role":"system","content":"You help the customers of a small shop."},'
  body = body .. '{"role":"user","content":"' .. said .. '"}],"max_tokens":200}'
  return wrk.format(nil, "/v1/chat/completions", nil, body)
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"bytes":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"bad":%d}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
