-- The vector of the last label, JetBlue 727 from JFK to Aguadilla: everything that was known one hour before its schedule, and nothing more.
SELECT *
FROM airport_departures, carrier_weather, plane_last_arrival, route_daily, airport_weather
FOR ENTITY (origin = 'JFK', carrier = 'B6', tailnum = 'N641JB', dest = 'BQN')
AS OF TIMESTAMP '2013-03-01 03:59:00';
