-- What HAProxy cannot do by itself: compare keys that change while it runs, and keep requests in one fair line until an
-- engine has room. FALCON_HOLD, FALCON_HELD: seconds and number of requests; FALCON_KEYS: a file, or unset where no key is
-- asked for; FALCON_LEAVING: a file that is there once the pod leaves; FALCON_SELF: address and port of this gateway.
--
-- There is one line for "no engine is ready" and for "all are full", first come first served. HAProxy's own queue is not
-- used: without a server there is none, and 2.6 lets later requests overtake and does not see clients hang up in it.
-- A request that HAProxy ends (`option abortonclose`) never comes back here, so who waits says until when it will be heard:
-- in rounds of the task at the end, which stand still, as all else, while the process gets no time to run.

collectgarbage("setpause", 110) -- a stream keeps its coroutine: collect before as much again has gathered

local config = {
  hold = tonumber(os.getenv("FALCON_HOLD")),
  held = tonumber(os.getenv("FALCON_HELD")),
  leaving = os.getenv("FALCON_LEAVING"),
  keys = os.getenv("FALCON_KEYS"),
  self = os.getenv("FALCON_SELF"),
}

local function now()
  local time = core.now()
  return time.sec + time.usec / 1e6
end

-- Keys: any line of the file. Digests are compared, so that how long a comparison takes says nothing of the key.

local keys_text, keys_new, keys_count, digests = nil, {}, 0, {}

local function read_keys()
  local file = io.open(config.keys, "r")
  if not file then return end
  local text = file:read("a")
  file:close()
  if text == keys_text then return end
  local found = {}
  for line in text:gmatch("[^\r\n]+") do
    local key = line:match("^%s*(.-)%s*$")
    if key ~= "" then found[#found + 1] = key end
  end
  keys_text, keys_new, keys_count = text, found, #found
end

if config.keys then
  read_keys()
  core.register_task(function()
    while true do
      core.msleep(1000)
      read_keys()
    end
  end)
end

core.register_action("key", { "http-req" }, function(txn)
  if keys_new then -- only a request has the converters
    local fresh = {}
    for _, key in ipairs(keys_new) do fresh[txn.c:sha2(key, 256)] = true end
    digests, keys_new = fresh, nil
  end
  local sent = txn.http:req_get_headers()["authorization"]
  if not sent or sent[1] then return end
  local scheme, key = sent[0]:match("^(%a+) +(%S+)$")
  if scheme and scheme:lower() == "bearer" then txn:set_var("txn.key", digests[txn.c:sha2(key, 256)] == true) end
end)

-- The line. waiting[id] = {since, due, peer, gone}; ids from head on wait, in this order.

local waiting, head, last = {}, 1, 0
local stopping = false
local round = 0
local ROUND, LONGEST_PAUSE = 50, 200 -- milliseconds
local GRACE = math.ceil(LONGEST_PAUSE / ROUND) + 10

local function advance()
  while head <= last and (not waiting[head] or round > waiting[head].due) do
    waiting[head] = nil
    head = head + 1
  end
end

local function alive()
  local count, oldest = 0, nil
  for id = head, last do
    local entry = waiting[id]
    if entry and round <= entry.due then
      count, oldest = count + 1, oldest or entry.since
    end
  end
  return count, oldest and now() - oldest or 0
end

-- With the one thread that HAProxy has here, a request that is let go is counted at its engine before anything else runs.
local function free(txn)
  return txn.f:be_conn_free("engines")
end

local function refusal(txn)
  return txn.f:nbsrv("engines") > 0 and "full" or "none"
end

-- How /proc/net/tcp writes a client's connection, our port and its address; nil for IPv6.
local function peer_of(txn)
  local a, b, c, d = (txn.f:src() or ""):match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  if not a then return nil end
  local bytes = string.char(tonumber(a), tonumber(b), tonumber(c), tonumber(d))
  return string.format("%04X %08X:%04X", txn.f:dst_port(), string.unpack("=I4", bytes), txn.f:src_port())
end

-- Whether this process stops because its pod leaves; else another one has taken its place.
local function leaving()
  local file = io.open(config.leaving, "r")
  if file then file:close() end
  return file ~= nil
end

local function wait(txn, id, entry)
  while true do
    advance()
    local place = id - head
    local room = free(txn)
    if place == 0 and room > 0 then return nil end
    if stopping then
      if not leaving() then return "successor" end
      if (tonumber(core.backends["engines"]:get_stats()["act"]) or 0) == 0 then return "none" end
    end
    if now() - entry.since >= config.hold then return refusal(txn) end
    -- Only the oldest goes. Those that have room too follow a millisecond apart, in their order. Never sleep 0 or less:
    -- HAProxy 3.x does not survive a time to wake that has passed.
    local pause = place > 0 and place < room and math.min(1 + place, LONGEST_PAUSE) or place < 32 and 20 or LONGEST_PAUSE
    entry.due = round + GRACE
    core.msleep(pause)
    if entry.gone then return "gone" end
    -- HAProxy may have been too busy to come back in time, and the line gone on without this one.
    waiting[id] = entry
    head = math.min(head, id)
  end
end

-- Every request for an answer that came this far since this process began, whatever becomes of it: one that is refused
-- because the line is full is wanted no less. Lists of models, which ask no engine to compute, are not counted.
local arrived = 0

core.register_action("hold", { "http-req" }, function(txn)
  if txn.f:method() == "POST" then arrived = arrived + 1 end
  advance()
  if head > last and free(txn) > 0 then return end
  if config.hold == 0 or (last - head + 1 >= config.held and alive() >= config.held) then
    txn:set_var("txn.wait", refusal(txn))
    return
  end
  last = last + 1
  local id, entry = last, { since = now(), due = round + GRACE, peer = peer_of(txn) }
  waiting[id] = entry
  local result = wait(txn, id, entry)
  waiting[id] = nil
  if result then txn:set_var("txn.wait", result) end
end)

-- Clients that hang up while they wait. HAProxy 3.x does not look at a connection whose request it has read before it
-- looks for a server, nor does 2.6 where the body is larger than the buffer; the kernel knows. What it cannot know is an end
-- that the client's own kernel holds back, behind a body for which there is no room here.

local CLOSED = "08" -- by the client; one that has reset its connection is not listed any more
local missed = {}

local function look_at_clients()
  local file = io.open("/proc/net/tcp", "r")
  if not file then return end
  file:setvbuf("full", 65536)
  local states = {}
  while true do
    local block, rest = file:read(65536, "L")
    if not block then break end
    for peer, state in (block .. (rest or "")):gmatch(": %x+:(%x+ %x+:%x+) (%x%x) ") do states[peer] = state end
    core.yield()
  end
  file:close()
  local missing = {}
  for id, entry in pairs(waiting) do
    local state = entry.peer and states[entry.peer]
    -- The list is not read in one piece, and who came meanwhile is not in it: missing once says nothing.
    if state == CLOSED or (entry.peer and not state and missed[id]) then entry.gone, entry.due = true, -1 end
    missing[id] = not state
  end
  missed = missing
end

-- Who asks for the load and waits until there is something new: the round of each one's last turn, since a client that hangs
-- up never comes back here. Turns are few: all of them together take no more than a little of the one thread.

local POLL_SECONDS, TURN, MOST_POLLERS = 20, 40, 100
local pollers, polling = {}, 0

local function count_pollers()
  local count = 0
  for id, turn in pairs(pollers) do
    if round > turn + GRACE then pollers[id] = nil else count = count + 1 end
  end
  polling = count
end

core.register_task(function()
  while true do
    core.msleep(ROUND)
    round = round + 1
    advance()
    local waits = next(waiting)
    if waits or polling > 0 then stopping = tonumber(core.get_info()["Stopping"]) == 1 end
    if polling > 0 then count_pollers() end
    if waits then
      local start = os.clock()
      look_at_clients()
      core.msleep(1 + math.floor((os.clock() - start) * 2000)) -- at most a third of one thread, however long the list is
    end
  end
end)

-- HAProxy looks behind every chunk whether more has come, a system call each, until it has seen once that the kernel tells
-- when the other side closes. So one client closes at the start.
core.register_task(function()
  core.msleep(1000) -- what this process replaces listens no more
  local client = core.tcp()
  client:settimeout(1)
  if client:connect(config.self) then client:close() end
end)

-- With `?arrived=N` it answers as soon as another number has arrived, anything is held, or this process is to end. Where too
-- many ask that already, it answers at once.
local function wait_for_news(applet)
  local known = tonumber(applet.qs:match("arrived=(%d+)"))
  local start = now()
  if not known then return 0 end
  local id = {}
  while arrived == known and not stopping and head > last and (pollers[id] or polling < MOST_POLLERS) do
    local left = POLL_SECONDS - (now() - start)
    if left <= 0 then break end
    if not pollers[id] then polling = polling + 1 end
    pollers[id] = round
    core.msleep(math.max(TURN, polling)) -- a thousand turns a second, however many there are
    advance()
  end
  if pollers[id] then pollers[id], polling = nil, polling - 1 end
  return now() - start
end

core.register_service("load", "http", function(applet)
  local waited = wait_for_news(applet)
  local count, oldest = alive()
  local figures = {
    { "falcon_gateway_in_flight_requests", "gauge", applet.f:be_conn("engines") },
    { "falcon_gateway_held_requests", "gauge", count },
    { "falcon_gateway_held_oldest_seconds", "gauge", string.format("%.3f", oldest) },
    { "falcon_gateway_arrived_requests_total", "counter", arrived },
    { "falcon_gateway_waited_seconds", "gauge", string.format("%.3f", waited) },
    { "falcon_gateway_keys", "gauge", keys_count },
  }
  local lines = {}
  for _, figure in ipairs(figures) do
    local name, kind, value = table.unpack(figure)
    lines[#lines + 1] = "# TYPE " .. name .. " " .. kind .. "\n" .. name .. " " .. value .. "\n"
  end
  local body = table.concat(lines)
  applet:set_status(200)
  applet:add_header("content-type", "text/plain; version=0.0.4")
  applet:add_header("content-length", tostring(#body))
  applet:start_response()
  applet:send(body)
end)
