-- Posts chats in turn, and prints what happened as one line of JSON.
local prompts = {
  "When will my parcel arrive? I ordered it last week and the page still says that it is being packed.",
  "Please write a short note to my landlord about the broken heating in the kitchen, polite but firm.",
  "What is the difference between a router and a switch, in two sentences that my mother understands?",
  "Give me three ideas for a rainy afternoon with two children of four and seven years in a small flat.",
}
local turn = 0
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer bench"

function request()
  turn = turn % #prompts + 1
  local body = '{"model":"bench","messages":[{"role":"system","content":"You help the customers of a small shop."},'
  body = body .. '{"role":"user","content":"' .. prompts[turn] .. '"}],"max_tokens":200}'
  return wrk.format(nil, "/v1/chat/completions", nil, body)
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"bytes":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"bad":%d}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
