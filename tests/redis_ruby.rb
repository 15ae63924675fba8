# redis-rb, which nobody of this project wrote, against a running cluster: all nodes as sentinels.
#
# redis_ruby.rb PORTS LEADER     writes through the death of the leader, which is announced by "writing";
#                                prints how many writes were acknowledged, and who leads at the end

require "redis"

ports = ARGV[0].split(",").map(&:to_i)
leader = ARGV[1].to_i
sentinels = ports.map { |port| { host: "127.0.0.1", port: port } }

def check(what, is_so)
  raise what unless is_so
end

# It asks each server that it is sent to for its ROLE, and goes on looking if that is not the one it wants.
options = { url: "redis://mymaster", sentinels: sentinels, timeout: 1, reconnect_attempts: 0 }
master = Redis.new(**options, role: :master)
replica = Redis.new(**options, role: :slave)

master.set("first", "1")
check "where it writes", master._client.port == leader
check "the role", master.call("ROLE")[0] == "master" && replica.call("ROLE")[0] == "slave"
check "what was written", replica.get("first") == "1"

# Each event as it is told, from a node that goes on.
events = Queue.new
listener = Redis.new(host: "127.0.0.1", port: ports.find { |port| port != leader })
subscribed = Queue.new
Thread.new do
  listener.subscribe("+switch-master") do |on|
    on.subscribe { |_channel, count| subscribed << count }
    on.message { |_channel, message| events << message.split(" ") }
  end
end
check "the subscription", subscribed.pop == 1

puts "writing"
$stdout.flush
acknowledged = 0
deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 30
until acknowledged >= 200 && !events.empty?
  check "another leader within 30 s", Process.clock_gettime(Process::CLOCK_MONOTONIC) < deadline
  begin
    # Written twice it is the same, so that what is unknown may be repeated.
    master.set("key:#{acknowledged}", acknowledged)
    acknowledged += 1
  rescue Redis::BaseError
    # An attempt in between; the next one asks the sentinels again.
  end
end

new_leader = master._client.port
check "a new leader", new_leader != leader
event = events.pop
check "the event #{event}", event[1..2] == ["127.0.0.1", leader.to_s] && event[4] == new_leader.to_s
check "its role", master.call("ROLE")[0] == "master"
acknowledged.times do |number|
  check "key #{number}", master.get("key:#{number}") == number.to_s
end
puts "#{acknowledged} #{new_leader}"
